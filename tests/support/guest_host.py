"""The host side of the test world in `support/guest`, and a short way to run programs in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wasmtime.component import Component

from pie_daemon.errors import PieError
from pie_daemon.host import wasi
from pie_daemon.host.abi import Interface, Linker, ResultError, build_linker
from pie_daemon.host.engine import Engine, load_component
from pie_daemon.host.guest import Guest, current
from pie_daemon.host.libraries import Libraries
from pie_daemon.host.run import Outcome, run_component
from support.guests import CACHE, GUEST, build_guest, compiled

ECHOES = (
    "bools u8s u16s u32s u64s s8s s16s s32s s64s f32s f64s chars strings blobs tokens wide floats "
    "names flagged pairs points chunks lists shapes colors permissions maybe maybe-point outcomes"
).split()


@dataclass
class TestGuest(Guest):
    """Remembers what crossed the border."""

    __test__ = False

    remember: bool = True
    seen: dict[str, list[Any]] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, BaseException]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.on_line = lambda stream, line: self.lines.append((stream, line))
        self.on_failure = lambda where, error: self.failures.append((where, error))
        super().__post_init__()


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start
        self._closed = current().closed

    def increment(self, by: int) -> int:
        self.value += by
        return self.value

    def fork(self) -> Counter:
        return Counter(self.value)

    def twin(self) -> Counter:
        return self

    @staticmethod
    def parse(text: str) -> Counter:
        if not text.isdigit():
            raise PieError("invalid-argument", f"{text!r} is not a number")
        return Counter(int(text))

    def close(self) -> None:
        self._closed.append(self.value)


def _echo(name: str) -> Callable[[Any], Any]:
    def echo(value: Any) -> Any:
        guest = current()
        if guest.remember:
            guest.seen.setdefault(name, []).append(value)
        return value

    return echo


def _checked(number: int) -> int:
    if number == 99:
        raise PieError("busy", "99 is refused")
    return number


def _unit(fail: bool) -> None:
    if fail:
        raise PieError("denied", "as asked")


def _enum_error(fail: bool) -> int:
    if fail:
        raise ResultError("dark-green")
    return 1


def _bare_error(fail: bool) -> None:
    if fail:
        raise ResultError(None)


def _many(*arguments: Any) -> str:
    return json.dumps(arguments)


def _plain(how: str) -> Any:
    if how == "pie-error":
        raise PieError("closed", "the door")
    if how == "bug":
        raise ZeroDivisionError("a defect of the host")
    return {"text": "no number", "huge": 1 << 32}.get(how, 1)


def _adopt(item: Counter) -> None:
    current().table.hold(item)


def _receive() -> None:
    guest = current()
    guest.waiting.set()
    guest.mailbox.wait(lambda: False)


CHUNK = {"tokens": list(range(16)), "text": "sixteen tokens of text", "logprobs": [(1, 0.5)]}

HOST = Interface(
    "pie:guest/host@0.1.0",
    {
        **{name: _echo(name) for name in ECHOES},
        "many": _many,
        "checked": _checked,
        "unit": _unit,
        "next": lambda: CHUNK,
        "enum-error": _enum_error,
        "bare-error": _bare_error,
        "plain": _plain,
        "sum": lambda items: [item.value for item in items],
        "chosen": lambda *items: sum(item.value for item in items if item is not None),
        "swallow": lambda item: item.value,
        "adopt": _adopt,
        "receive": _receive,
    },
    {"counter": Counter},
)


@dataclass(frozen=True)
class Sandbox:
    """A linked component that tests run with an action of `support/guest/app.py`."""

    engine: Engine
    component: Component
    linker: Linker
    libraries: Libraries | None = None

    def run(self, *action: Any, guest: Guest | None = None) -> Outcome:
        guest = guest or TestGuest()
        return run_component(self.engine, self.linker, self.component, guest, json.dumps(action))

    @contextmanager
    def running(self, *action: Any, guest: Guest) -> Iterator[Callable[[], Outcome]]:
        """The action on a thread of its own; the yielded function waits for its outcome."""
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(self.run(*action, guest=guest)))
        thread.start()

        def join() -> Outcome:
            thread.join(60)
            return outcomes[0]

        try:
            yield join
        finally:
            guest.mailbox.stop("cancelled", "the test is over")
            thread.join(60)


def python_sandbox() -> Sandbox:
    """The Python test program; building and compiling it is cached on disk."""
    engine = Engine()
    component = load_component(engine, compiled(build_guest(GUEST)))
    libraries = Libraries(engine, CACHE)
    linker = build_linker(engine, [HOST, *wasi.INTERFACES], component, libraries)
    return Sandbox(engine, component, linker, libraries)


def wat_sandbox(text: str, *interfaces: Interface) -> Sandbox:
    """A component written as text."""
    engine = Engine()
    component = Component(engine.stock, text)
    return Sandbox(engine, component, build_linker(engine, interfaces, component))
