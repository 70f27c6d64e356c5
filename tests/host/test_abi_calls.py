"""Errors, resources and defects of host functions."""

from __future__ import annotations

import json

import pytest

from pie_daemon.host.table import Table
from support.guest_host import Sandbox, TestGuest


def test_refusals_reach_the_program_as_errors(sandbox: Sandbox) -> None:
    """PieError is `{code, message}`; other error types get their own payload."""
    outcome = sandbox.run("errors")
    assert json.loads(outcome.text) == [
        ["ok", "1"],
        ["err", "busy", "99 is refused"],
        ["ok", "None"],
        ["err", "denied", "as asked"],
        ["err", "Color.DARK_GREEN", ""],
        ["err", "None", ""],
        ["err", "invalid-argument", "'x' is not a number"],
    ]


def test_handles_are_the_python_objects(sandbox: Sandbox) -> None:
    """Constructors, methods, statics, five borrows in a list, optional borrows, owned ones."""
    guest = TestGuest()
    outcome = sandbox.run("resources", guest=guest)
    assert outcome.kind == "ok", outcome.text
    assert json.loads(outcome.text) == [[0, 1, 2, 3, 4], 11, 15, [11, 26, 37], 7, 3]
    assert len(guest.table) == guest.table.num_objects == 0
    # 5 counters, one with two names, its fork, the parsed, the swallowed and the adopted one.
    assert sorted(guest.closed) == [0, 1, 2, 3, 3, 4, 4, 7, 11, 15]


def test_too_many_handles_end_the_program(sandbox: Sandbox) -> None:
    """A program that keeps more handles than the table allows is told so."""
    guest = TestGuest(table=Table(max_handles=100))
    outcome = sandbox.run("keep-counters", 101, guest=guest)
    assert outcome.kind == "trap"
    assert "more than 100 handles" in outcome.text
    assert len(guest.closed) == 100 + 1
    assert guest.table.num_objects == 0


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("bug", "ZeroDivisionError: a defect of the host"),
        ("text", "AbiError: 'no number' is not an integer"),
        ("huge", "AbiError: 4294967296 is not an integer"),
    ],
)
def test_a_defect_of_the_host_ends_one_program_and_is_reported(
    sandbox: Sandbox, how: str, text: str
) -> None:
    """The program traps with the function and the exception; the hook gets the traceback."""
    guest = TestGuest()
    outcome = sandbox.run("plain", how, guest=guest)
    assert outcome.kind == "trap"
    assert f"pie:guest/host#plain: {text}" in outcome.text
    [(where, error)] = guest.failures
    assert where == "pie:guest/host#plain"
    assert error.__traceback__ is not None


def test_a_failing_report_does_not_hide_the_trap(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program still ends with the defect when the hook itself is broken."""
    guest = TestGuest()
    guest.on_failure = lambda where, error: [][0]
    outcome = sandbox.run("plain", "bug", guest=guest)
    assert "a defect of the host" in outcome.text
    assert "a defect of the host" in capsys.readouterr().err


def test_a_refusal_without_a_result_type_is_a_trap(sandbox: Sandbox) -> None:
    """A function that cannot return an error ends the program, and that is no defect."""
    guest = TestGuest()
    outcome = sandbox.run("plain", "pie-error", guest=guest)
    assert outcome.kind == "trap"
    assert "closed: the door" in outcome.text
    assert guest.failures == []


def test_a_program_error_carries_its_traceback(sandbox: Sandbox) -> None:
    """What the program wrote to stderr last explains its trap, without the runtime's noise."""
    outcome = sandbox.run("fail")
    assert outcome.kind == "trap"
    assert "KeyError: 'no such key'" in outcome.text
    assert "panicked" not in outcome.text


def test_a_program_returns_its_own_error(sandbox: Sandbox) -> None:
    """The error side of `run` is not a failure of the host."""
    outcome = sandbox.run("refuse", "not today")
    assert (outcome.kind, outcome.text) == ("err", "not today")


def test_a_huge_list_of_bytes_is_refused_before_it_costs_memory(sandbox: Sandbox) -> None:
    """wasmtime blows each byte up to 32; its budget per call ends the program that tries 8 MiB."""
    assert sandbox.run("blob", 1 << 20).kind == "ok"
    outcome = sandbox.run("blob", 1 << 23)
    assert outcome.kind == "trap"
    assert "too much data" in outcome.text
