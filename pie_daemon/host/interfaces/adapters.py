"""WIT interface `adapters`: LoRA adapters that the operator offers for a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pie_daemon.errors import PieError
from pie_daemon.host.context import HostContext, Model
from pie_daemon.scheduler.adapters import Opening
from pie_daemon.scheduler.replicas.adapters import Openings


class Adapter:
    """An adapter that stays loaded as long as this is open."""

    def __init__(self, model: Model, name: str, opening: Opening | Openings) -> None:
        self.model = model
        self.name = name
        self.opening = opening

    def close(self) -> None:
        # By what has opened it.
        self.model.scheduler.adapters.close(self.opening)  # type: ignore[arg-type]


def open_adapter(host: HostContext, model: Model, name: str) -> Adapter:
    """Blocks until it is loaded, which has to wait for the batch in flight."""
    path = model.adapters.find(name, model.name)
    opening = model.scheduler.adapters.open(path, host.mailbox.wake)
    adapter = Adapter(model, name, opening)
    with ExitStack() as undo:
        undo.callback(adapter.close)
        host.mailbox.wait(lambda: opening.done, None)
        if opening.error is not None:
            raise opening.error
        undo.pop_all()
    return adapter


def digest_for(model: Model, adapter: Adapter | None) -> str | None:
    """What the scheduler calls it. Raises: PieError: it is that of another model."""
    if adapter is None:
        return None
    if adapter.model is not model:
        raise PieError(
            "invalid-argument",
            f"adapter {adapter.name!r} is for {adapter.model.name}; the context is of {model.name}",
        )
    return adapter.opening.digest


FUNCTIONS: dict[str, Callable[..., Any]] = {"[static]adapter.open": open_adapter}
