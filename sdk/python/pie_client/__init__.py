"""Client of the Pie daemon.

    from pie_client import Client

    with Client.connect() as client:
        process = client.launch("text-completion", {"prompt": "What is Pie?"})
        print(process.result()["text"])

Importing this package is cheap: what is named here is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module

# Type checkers know this name; `typing` itself would be most of what importing this costs.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from pie_client.aio import AsyncClient
    from pie_client.errors import NotRunning, PieError, ProgramError, VersionMismatch
    from pie_client.process import AsyncProcess
    from pie_client.sync import Client, Process

__all__ = [
    "AsyncClient",
    "AsyncProcess",
    "Client",
    "NotRunning",
    "PieError",
    "Process",
    "ProgramError",
    "VersionMismatch",
]

_HOME = {
    "AsyncClient": "aio",
    "AsyncProcess": "process",
    "Client": "sync",
    "NotRunning": "errors",
    "PieError": "errors",
    "Process": "sync",
    "ProgramError": "errors",
    "VersionMismatch": "errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
