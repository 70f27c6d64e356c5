"""Wherever a program traps, the end of the instance frees what it held."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pie_daemon.host import wasi
from pie_daemon.host.abi import Interface, build_linker
from pie_daemon.host.guest import current
from support.guest_host import HOST, Sandbox, TestGuest, wat_sandbox
from support.wat import OK_EMPTY, using_things


@dataclass
class FragileGuest(TestGuest):
    calls_left: int = 1 << 30


class Fragile(Interface):
    """Every function raises once the guest's allowance of calls is used up."""

    def find(self, name: str) -> Callable[..., Any] | None:
        function = super().find(name)
        if function is None:
            return None

        def fragile(*arguments: Any) -> Any:
            guest = current()
            guest.calls_left -= 1
            if guest.calls_left < 0:
                raise ConnectionAbortedError(name)
            return function(*arguments)

        return fragile


def test_a_trap_at_every_host_call_frees_the_table(sandbox: Sandbox) -> None:
    """The program is ended at its first, second, third ... call; nothing is left each time."""
    offered = [
        Fragile(one.name, one.functions, one.resources)
        for one in [HOST, *wasi.INTERFACES]
        if type(one) is Interface
    ]
    refusing = [one for one in wasi.INTERFACES if type(one) is not Interface]
    interfaces = [*offered, *refusing]
    linker = build_linker(sandbox.engine, interfaces, sandbox.component, sandbox.libraries)
    fragile = Sandbox(sandbox.engine, sandbox.component, linker)
    for allowance in itertools.count():
        guest = FragileGuest(calls_left=allowance)
        outcome = fragile.run("resources", guest=guest)
        assert len(guest.table) == guest.table.num_objects == 0
        if outcome.kind == "ok":
            break
        assert "ConnectionAbortedError" in outcome.text
        assert len(guest.failures) == 1
    assert allowance > 20


class Thing:
    def __init__(self, number: int) -> None:
        self.number = number

    def value(self) -> int:
        return self.number

    def close(self) -> None:
        current().closed.append(self.number)


THINGS = Interface("pie:test/things@0.1.0", {"tick": lambda: None}, {"thing": Thing})


def test_handles_dropped_in_a_loop_are_freed_at_once() -> None:
    """Fifty thousand resources made and dropped never use more than one name."""
    sandbox = wat_sandbox(
        using_things(
            f"""(loop $again
                  (local.set $h (call $new (local.get $i)))
                  (if (i32.ne (call $value (local.get $h)) (local.get $i)) (then unreachable))
                  (call $drop (local.get $h))
                  (local.set $i (i32.add (local.get $i) (i32.const 1)))
                  (br_if $again (i32.lt_u (local.get $i) (i32.const 50000))))
                {OK_EMPTY}"""
        ),
        THINGS,
    )
    guest = TestGuest()
    guest.table.max_handles = 1
    assert sandbox.run("x", guest=guest).kind == "ok"
    assert guest.closed == list(range(50_000))


def test_a_trap_in_wasm_frees_the_table() -> None:
    """`unreachable` runs no destructor; the table does its work."""
    sandbox = wat_sandbox(
        using_things(
            """(drop (call $new (i32.const 1))) (drop (call $new (i32.const 2)))
               (call $tick) unreachable"""
        ),
        THINGS,
    )
    guest = TestGuest()
    outcome = sandbox.run("x", guest=guest)
    assert outcome.kind == "trap"
    assert "unreachable" in outcome.text
    assert guest.closed == [2, 1]
    assert guest.table.num_objects == 0


def test_a_stale_handle_is_a_trap() -> None:
    """Using a handle after dropping it ends the program before the host hears of it."""
    sandbox = wat_sandbox(
        using_things(
            """(local.set $h (call $new (i32.const 5))) (call $drop (local.get $h))
               (call $value (local.get $h)) unreachable"""
        ),
        THINGS,
    )
    guest = TestGuest()
    outcome = sandbox.run("x", guest=guest)
    assert outcome.kind == "trap"
    assert "unknown handle" in outcome.text
    assert guest.failures == []
