"""LoRA adapters that the operator offers beside a model."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from inferlet import _host
from inferlet.model import Model


class Adapter:
    """An adapter by its name, for `Context.generate(adapter=...)` and `Chat(adapter=...)`.

    It stays loaded until it is closed and no context has tokens left that it computed.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    @classmethod
    def open(cls, model: Model, name: str) -> Adapter:
        """Blocks until it is loaded. Raises `Denied`, or `NotFound` with the names there are."""
        return cls(_host.call(_host.adapters.Adapter.open, model.handle, name))

    def close(self) -> None:
        """Also done at the end of a `with` block or of the program."""
        self.handle.__exit__(None, None, None)

    def __enter__(self) -> Adapter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
