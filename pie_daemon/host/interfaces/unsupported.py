"""Functions that this version links, so that components load, and answers `unsupported`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.errors import PieError
from pie_daemon.host.context import HostContext


class Unavailable:
    """The class of resources that no function of this version ever hands out."""


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(host: HostContext, *arguments: object) -> Any:
        raise PieError("unsupported", f"{name} is not supported by this version")

    return refuse


def refusals(names: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    return {name: _refuse(name.partition("]")[2] or name) for name in names}
