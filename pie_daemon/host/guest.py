"""One running component as the layers below the interfaces see it, and how callbacks find it."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pie_daemon.host.mailbox import Mailbox
from pie_daemon.host.stop import CpuMeter
from pie_daemon.host.table import Table

Stream = Literal["stdout", "stderr"]

# A wasm stack (engine.MAX_WASM_STACK_BYTES) and the Python frames of a host call above it.
THREAD_STACK_BYTES = 4 << 20
STDERR_TAIL_LINES = 20


class Exit(BaseException):
    """The program left through wasi:cli/exit instead of returning."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


def _print_failure(where: str, error: BaseException) -> None:
    sys.excepthook(type(error), error, error.__traceback__)


@dataclass
class Guest:
    """What the ABI layer and WASI need of an instance. Interfaces subclass it with their own.

    `on_line` gets whole lines (without the newline) of the program's stdout and stderr;
    `on_failure` gets defects of host functions: where, and the exception with its traceback.
    """

    mailbox: Mailbox = field(default_factory=Mailbox)
    table: Table = field(default_factory=Table)
    cpu: CpuMeter = field(default_factory=CpuMeter)
    memory_bytes: int | None = None
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    on_line: Callable[[Stream, str], None] = lambda _stream, _line: None
    on_failure: Callable[[str, BaseException], None] = _print_failure
    # The first exception that a host call turned into a trap.
    cause: BaseException | None = None
    # The program's open output streams, made on first use; see `wasi.streams`.
    outputs: dict[Stream, Any] = field(default_factory=dict)
    stderr_tail: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_TAIL_LINES))

    def __post_init__(self) -> None:
        if self.table.on_error is None:
            self.table.on_error = lambda error: self.on_failure("close of a resource", error)

    def write_line(self, stream: Stream, line: str) -> None:
        if stream == "stderr":
            self.stderr_tail.append(line)
        self.on_line(stream, line)

    def finish_output(self) -> None:
        """Hands out what the program wrote after its last newline."""
        for stream in self.outputs.values():
            stream.finish()


class _Current(threading.local):
    guest: Guest | None = None


_current = _Current()


def current() -> Any:
    """The guest whose thread this is. Only valid inside a host call."""
    guest = _current.guest
    if guest is None:
        raise RuntimeError("no component runs on this thread")
    return guest


class entered:
    """Makes a guest the current one of this thread."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def __enter__(self) -> Guest:
        if _current.guest is not None:
            raise RuntimeError("a component already runs on this thread")
        _current.guest = self._guest
        return self._guest

    def __exit__(self, *_: object) -> None:
        _current.guest = None
