"""LoRA adapters that the operator offers beside a model."""

from __future__ import annotations

from inferlet import _host
from inferlet._handle import Handle
from inferlet.model import Model


class Adapter(Handle):
    """An adapter by its name, for `Context.generate(adapter=...)` and `Chat(adapter=...)`.

    It stays loaded until it is closed and no context has tokens left that it computed.
    """

    @classmethod
    def open(cls, model: Model, name: str) -> Adapter:
        """Blocks until it is loaded. Raises `Denied`, or `NotFound` with the names there are."""
        return cls(_host.call(_host.adapters.Adapter.open, model.handle, name))
