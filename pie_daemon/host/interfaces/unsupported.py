"""WIT interfaces that this version links, so that components load, and answers `unsupported`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.errors import PieError
from pie_daemon.host.abi import Interface
from pie_daemon.host.context import HostContext


class Unavailable:
    """The class of resources that no function of this version ever hands out."""


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(host: HostContext, *arguments: object) -> Any:
        raise PieError("unsupported", f"{name} is not supported by this version")

    return refuse


_FUNCTIONS = {
    "constraints": (
        *(f"[static]constraint.{kind}" for kind in ("json", "json-schema", "regex", "lark")),
        "[static]constraint.choice",
        *(f"[method]constraint.{what}" for what in ("fork", "accept", "rollback", "mask")),
        "[method]constraint.complete",
    ),
}
_RESOURCES = {
    "constraints": ("constraint",),
}


def refusals(names: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    return {name: _refuse(name.partition("]")[2] or name) for name in names}


def interfaces(
    version: str, bind: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> list[Interface]:
    return [
        Interface(
            f"pie:inferlet/{name}@{version}",
            functions={key: bind(function) for key, function in refusals(functions).items()},
            resources=dict.fromkeys(_RESOURCES.get(name, ()), Unavailable),
        )
        for name, functions in _FUNCTIONS.items()
    ]
