"""A program ends within a second of being stopped, whatever it does, and says why."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest

from pie_daemon.host.guest import Guest
from pie_daemon.host.mailbox import Mailbox
from pie_daemon.host.run import Outcome
from pie_daemon.host.stop import CpuMeter, Stopped
from support.guest_host import Sandbox, TestGuest, wat_sandbox

# DESIGN promises one second; a loaded test machine gets a generous guard on top of it.
END_S = 5.0


def stop_after_start(sandbox: Sandbox, guest: TestGuest, *action: object) -> tuple[Outcome, float]:
    """The outcome, and seconds from the request to the end."""
    with sandbox.running(*action, guest=guest) as join:
        until(lambda: guest.cpu.used_s > 0.02 or guest.waiting.is_set() or bool(guest.lines))
        start_s = time.monotonic()
        guest.mailbox.stop("cancelled", "the client asked")
        return join(), time.monotonic() - start_s


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end_s
        pause.wait(0.005)


@pytest.mark.parametrize("action", [("spin",), ("receive",), ("deny-memory",)])
def test_a_stop_ends_the_program(sandbox: Sandbox, action: tuple[object, ...]) -> None:
    """A loop, a wait in a host call and a loop around refused memory end at once."""
    guest = TestGuest(memory_bytes=256 << 20)
    outcome, took_s = stop_after_start(sandbox, guest, *action)
    assert (outcome.kind, outcome.reason, outcome.text) == (
        "stopped",
        "cancelled",
        "the client asked",
    )
    assert took_s < END_S
    assert guest.failures == []


def test_a_program_asleep_for_ever_ends(sandbox: Sandbox) -> None:
    """A wait in wasi:io/poll for a timer of years ends at once."""
    guest = TestGuest()
    with sandbox.running("sleep", 1e8, guest=guest) as join:
        start_s = time.monotonic()
        guest.mailbox.stop("cancelled", "wake up")
        assert join().reason == "cancelled"
    assert time.monotonic() - start_s < END_S


def test_a_stop_before_the_start_runs_nothing(sandbox: Sandbox) -> None:
    """A cancel that overtakes the launch wins."""
    guest = TestGuest()
    guest.mailbox.stop("shutdown", "the daemon is going down")
    outcome = sandbox.run("say", "never", guest=guest)
    assert (outcome.kind, outcome.reason) == ("stopped", "shutdown")
    assert guest.lines == []


def test_the_first_reason_stays(sandbox: Sandbox) -> None:
    """A later stop does not rewrite why the program ended."""
    guest = TestGuest()
    guest.mailbox.stop("cancelled", "first")
    guest.mailbox.stop("shutdown", "second")
    assert sandbox.run("say", "never", guest=guest).text == "first"


def test_the_cpu_grant_ends_a_loop(sandbox: Sandbox) -> None:
    """Only CPU time counts, and the reason names use and grant."""
    guest = TestGuest(cpu=CpuMeter(grant_s=0.1))
    outcome = sandbox.run("spin", guest=guest)
    assert (outcome.kind, outcome.reason) == ("stopped", "cpu")
    assert "the grant is 0.1 s" in outcome.text
    assert 0.1 < guest.cpu.used_s < 2.0


def test_waiting_costs_no_cpu_time(sandbox: Sandbox) -> None:
    """A program that sleeps longer than its CPU grant comes back."""
    guest = TestGuest(cpu=CpuMeter(grant_s=0.2))
    outcome = sandbox.run("sleep", 0.4, guest=guest)
    assert outcome.kind == "ok", outcome
    assert guest.cpu.used_s < 0.2


@pytest.mark.parametrize("action", [("spin",), ("receive",), ("sleep", 1e8)])
def test_the_deadline_ends_waiting_and_computing(
    sandbox: Sandbox, action: tuple[object, ...]
) -> None:
    """A deadline needs nobody to watch it."""
    guest = TestGuest(mailbox=Mailbox(deadline_s=time.monotonic() + 0.1))
    start_s = time.monotonic()
    outcome = sandbox.run(*action, guest=guest)
    assert (outcome.kind, outcome.reason) == ("stopped", "deadline")
    assert time.monotonic() - start_s < END_S


def test_the_memory_grant_ends_a_hog(sandbox: Sandbox) -> None:
    """A program that allocates without end is told its grant."""
    guest = TestGuest(memory_bytes=64 << 20)
    outcome = sandbox.run("hog", guest=guest)
    assert (outcome.kind, outcome.reason) == ("stopped", "memory")
    assert "the memory grant is 64 MiB" in outcome.text


def test_a_grant_below_the_initial_memory_is_named() -> None:
    """A component that does not even start within its grant says so."""
    sandbox = wat_sandbox(
        """(component
             (core module $m (memory (export "m") 100))
             (core instance $i (instantiate $m)))"""
    )
    outcome = sandbox.run(guest=Guest(memory_bytes=1 << 20))
    assert (outcome.kind, outcome.reason) == ("stopped", "memory")


def test_deep_recursion_is_an_ordinary_error(sandbox: Sandbox) -> None:
    """Python's own limit comes before the wasm stack, and that before the thread's."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(sandbox.run("deep", 100_000)))
    thread.start()
    thread.join(60)
    assert outcomes[0].kind == "trap"
    assert "RecursionError" in outcomes[0].text
    assert json.loads(sandbox.run("deep", 500).text) == 500


def test_wasm_stack_overflow_ends_one_program() -> None:
    """Endless recursion in wasm is a trap with its name."""
    sandbox = wat_sandbox(
        """(component
             (core module $m
               (memory (export "m") 1)
               (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 8)
               (func $f (export "run") (param i32 i32) (result i32)
                 (call $f (local.get 0) (local.get 1))))
             (core instance $i (instantiate $m))
             (func (export "run") (param "input" string) (result (result string (error string)))
               (canon lift (core func $i "run") (memory $i "m") (realloc (func $i "realloc")))))"""
    )
    outcome = sandbox.run("x")
    assert outcome.kind == "trap"
    assert "call stack exhausted" in outcome.text


def test_one_stop_leaves_the_others_alone(sandbox: Sandbox) -> None:
    """Four programs are stopped beside a fifth, which finishes its sleep."""
    sleeper = TestGuest()
    with sandbox.running("sleep", 0.3, guest=sleeper) as join:
        spinners = [TestGuest() for _ in range(4)]
        for guest in spinners:
            assert stop_after_start(sandbox, guest, "spin")[0].reason == "cancelled"
        assert join().kind == "ok"


def test_a_wake_is_never_lost() -> None:
    """A thousand hand-overs between two threads all arrive."""
    mailbox = Mailbox()
    items: list[int] = []
    taken: list[int] = []

    def produce() -> None:
        for number in range(1000):
            items.append(number)
            mailbox.wake()

    thread = threading.Thread(target=produce)
    thread.start()
    while len(taken) < 1000:
        assert mailbox.wait(lambda: len(items) > len(taken), timeout_s=10)
        taken.extend(items[len(taken) :])
    thread.join()


def test_a_wait_times_out() -> None:
    """False after the timeout, True when it was ready already."""
    mailbox = Mailbox()
    assert mailbox.wait(lambda: False, timeout_s=0.01) is False
    assert mailbox.wait(lambda: True, timeout_s=0.0) is True


def test_wakes_do_not_pile_up() -> None:
    """A program that is always ready collects no queue of wakes."""
    mailbox = Mailbox()
    for _ in range(1000):
        mailbox.wake()
        mailbox.wait(lambda: True)
    assert mailbox.num_pending <= 1


def test_a_stop_ends_every_later_wait() -> None:
    """Once stopped, a mailbox never lets its thread wait again."""
    mailbox = Mailbox()
    mailbox.stop("cancelled", "now")
    for _ in range(3):
        with pytest.raises(Stopped, match="now"):
            mailbox.wait(lambda: True)
