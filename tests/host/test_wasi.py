"""The host's own WASI as a Python program sees it."""

from __future__ import annotations

import json
import threading
import time

import pytest

from pie_daemon.host import wasi
from pie_daemon.host.guest import Guest, entered
from pie_daemon.host.mailbox import Mailbox
from pie_daemon.host.stop import Stopped
from pie_daemon.host.wasi.poll import Pollable, Timer, poll
from pie_daemon.host.wasi.streams import MAX_LINE_BYTES, OutputStream
from support.guest_host import Sandbox, TestGuest


def test_output_arrives_in_lines(sandbox: Sandbox) -> None:
    """stdout and stderr are told apart."""
    guest = TestGuest()
    sandbox.run("say", "one\ntwo", guest=guest)
    assert guest.lines == [
        ("stdout", "one"),
        ("stdout", "two"),
        ("stderr", "err one"),
        ("stderr", "two"),
    ]


def test_a_line_without_end_is_cut_and_delivered(sandbox: Sandbox) -> None:
    """Nothing is lost, and no piece is longer than the bound."""
    guest = TestGuest()
    sandbox.run("write-long", 3 * MAX_LINE_BYTES + 5, guest=guest)
    lengths = [len(line) for _, line in guest.lines]
    assert sum(lengths) == 3 * MAX_LINE_BYTES + 5
    assert max(lengths) == MAX_LINE_BYTES


def test_a_character_may_arrive_in_two_writes() -> None:
    """Bytes are decoded when a line is whole; what cannot be decoded is replaced."""
    guest = TestGuest()
    stream = OutputStream(guest, "stdout")
    stream.write("ü".encode()[:1])
    stream.write("ü".encode()[1:] + b"\n\xff\nrest")
    assert [line for _, line in guest.lines] == ["ü", "\N{REPLACEMENT CHARACTER}"]
    stream.finish()
    assert guest.lines[-1] == ("stdout", "rest")


def test_what_a_program_may_have_of_the_system(sandbox: Sandbox) -> None:
    """Randomness, time and the granted environment; an empty stdin; no files, no sockets."""
    guest = TestGuest(environment={"PIE_TEST": "granted"})
    outcome = sandbox.run("system", guest=guest)
    assert outcome.kind == "ok", outcome.text
    found = json.loads(outcome.text)
    assert found["file"] in ("PermissionError", "FileNotFoundError")
    assert found["socket"] in ("PermissionError", "OSError", "gaierror")
    del found["file"], found["socket"]
    assert found == {"random": True, "time": True, "environ": "granted", "stdin": ""}


def test_python_sleeps_and_asyncio_sleeps(sandbox: Sandbox) -> None:
    """time.sleep and an asyncio loop over it take the time they were given."""
    start_s = time.monotonic()
    assert json.loads(sandbox.run("asleep", 0.1).text) == "slept"
    assert sandbox.run("sleep", 0.05).kind == "ok"
    assert time.monotonic() - start_s > 0.15


@pytest.mark.parametrize(("status", "kind"), [(0, "ok"), (3, "err")])
def test_exit_is_an_outcome(sandbox: Sandbox, status: int, kind: str) -> None:
    """Leaving through exit is the program's own end, not a failure of the host."""
    guest = TestGuest()
    assert sandbox.run("exit", status, guest=guest).kind == kind
    assert guest.failures == []


def test_poll_names_the_ready_ones() -> None:
    """All that are ready are reported, in order; a timer in the past is ready."""
    now_ns = time.monotonic_ns()
    with entered(Guest()):
        later = Timer(now_ns + 10**15)
        assert poll([later, Pollable(), Timer(now_ns - 1)]) == [1, 2]
        assert poll([later, Timer(now_ns + 20_000_000)]) == [1]
        Timer(time.monotonic_ns() + 1_000_000).block()


def test_poll_without_anything_is_a_defect_of_the_program() -> None:
    """An empty list would wait for ever."""
    with entered(Guest()), pytest.raises(ValueError, match="at least one"):
        poll([])


def test_poll_ends_with_a_stop() -> None:
    """A stop from another thread raises out of the wait."""
    guest = Guest(mailbox=Mailbox())
    with entered(guest):
        threading.Timer(0.05, guest.mailbox.stop, ("cancelled", "enough")).start()
        with pytest.raises(Stopped, match="enough"):
            poll([Timer(time.monotonic_ns() + 10**18)])


def test_every_interface_has_one_home() -> None:
    """No two host interfaces claim the same name."""
    names = [interface.name for interface in wasi.INTERFACES]
    assert len(names) == len(set(names))
