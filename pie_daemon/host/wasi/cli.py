"""wasi:cli: arguments, environment, exit and the standard streams."""

from __future__ import annotations

from typing import Any

from pie_daemon.host.abi import Interface
from pie_daemon.host.guest import Exit, current
from pie_daemon.host.wasi import streams


class Terminal:
    """Never handed out: a program has no terminal."""


def _exit(status: tuple[str, Any]) -> None:
    raise Exit(0 if status[0] == "ok" else 1)


def _exit_with_code(code: int) -> None:
    raise Exit(code)


def _no_terminal() -> None:
    return None


INTERFACES = [
    Interface(
        "wasi:cli/environment@0.2.0",
        {
            "get-environment": lambda: list(current().environment.items()),
            "get-arguments": lambda: list(current().arguments),
            "initial-cwd": lambda: None,
        },
    ),
    Interface("wasi:cli/exit@0.2.0", {"exit": _exit, "exit-with-code": _exit_with_code}),
    Interface("wasi:cli/stdin@0.2.0", {"get-stdin": streams.InputStream}),
    Interface("wasi:cli/stdout@0.2.0", {"get-stdout": lambda: streams.output("stdout")}),
    Interface("wasi:cli/stderr@0.2.0", {"get-stderr": lambda: streams.output("stderr")}),
    Interface("wasi:cli/terminal-input@0.2.0", resources={"terminal-input": Terminal}),
    Interface("wasi:cli/terminal-output@0.2.0", resources={"terminal-output": Terminal}),
    Interface("wasi:cli/terminal-stdin@0.2.0", {"get-terminal-stdin": _no_terminal}),
    Interface("wasi:cli/terminal-stdout@0.2.0", {"get-terminal-stdout": _no_terminal}),
    Interface("wasi:cli/terminal-stderr@0.2.0", {"get-terminal-stderr": _no_terminal}),
]
