"""wasi:filesystem and wasi:sockets: importable, and refused without a grant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.abi import Interface, ResultError


class Handle:
    """Stands for descriptors, sockets and networks."""


class Refusing(Interface):
    """Answers every function that is not listed with one error of the interface's own type."""

    def refusal(self) -> str:
        return "access" if self.name.startswith("wasi:filesystem/") else "access-denied"

    def find(self, name: str) -> Callable[..., Any] | None:
        found = super().find(name)
        if found is not None:
            return found

        def refuse(*_arguments: Any) -> Any:
            raise ResultError(self.refusal())

        return refuse


def _handles(*names: str) -> dict[str, type]:
    return dict.fromkeys(names, Handle)


INTERFACES: list[Interface] = [
    Refusing(
        "wasi:filesystem/types@0.2.0",
        {"filesystem-error-code": lambda _error: None},
        _handles("descriptor", "directory-entry-stream"),
    ),
    Refusing("wasi:filesystem/preopens@0.2.0", {"get-directories": list}),
    Refusing("wasi:sockets/network@0.2.0", resources=_handles("network")),
    Refusing("wasi:sockets/instance-network@0.2.0", {"instance-network": Handle}),
    Refusing(
        "wasi:sockets/udp@0.2.0",
        resources=_handles("udp-socket", "incoming-datagram-stream", "outgoing-datagram-stream"),
    ),
    Refusing("wasi:sockets/udp-create-socket@0.2.0"),
    Refusing("wasi:sockets/tcp@0.2.0", resources=_handles("tcp-socket")),
    Refusing("wasi:sockets/tcp-create-socket@0.2.0"),
    Refusing("wasi:sockets/ip-name-lookup@0.2.0", resources=_handles("resolve-address-stream")),
]
