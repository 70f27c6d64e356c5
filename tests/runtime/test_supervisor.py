"""Programs from launch to outcome, with real components."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pie_backend.dummy import expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.outcome import Budgets
from support.rig import Rig, events, saw
from support.waiting import until

PROMPT = "hello"
WANTED = expected_tokens(list(PROMPT.encode()), 24)


def tokens_of(rig: Rig, **options: object) -> list[int]:
    made = rig.run(
        "behave", do="generate", prompt=PROMPT, max_tokens=24, temperature=0.0, **options
    )
    return list(made[0])


def test_a_program_generates_what_the_backend_computes(rig: Rig) -> None:
    """From the launch through every layer and back, token for token."""
    assert WANTED == tokens_of(rig)


def test_the_outcome_is_the_last_event_and_carries_the_usage(rig: Rig) -> None:
    """Tokens, CPU time and wall time are counted, and the result is the program's own JSON."""
    instance = rig.launch("behave", do="generate", prompt=PROMPT, max_tokens=24, temperature=0.0)
    outcome = rig.outcome(instance)
    last = events(instance)[-1]

    assert "outcome" == last.kind
    assert msgspec.to_builtins(outcome) == msgspec.json.decode(last.data)
    assert [WANTED] == json.loads(outcome.result or "")
    assert (5, 24) == (outcome.usage.prompt_tokens, outcome.usage.generated_tokens)
    assert 0 < outcome.usage.cpu_s <= outcome.usage.wall_s


def test_many_programs_at_once_do_not_change_each_others_tokens(rig: Rig) -> None:
    """Sixty-four programs, sixteen of them ended midway: the others get their own tokens."""
    program = {"do": "generate", "temperature": 0.0, "max_tokens": 24, "repeat": 4}
    instances = [rig.launch("behave", prompt=f"prompt {n}", **program) for n in range(64)]
    for instance in instances[::4]:
        instance.cancel("by a test")

    for number, instance in enumerate(instances):
        outcome = rig.outcome(instance)
        if number % 4 == 0 and outcome.status == "cancelled":
            continue
        wanted = expected_tokens(list(f"prompt {number}".encode()), 24)
        assert [wanted] * 4 == json.loads(outcome.result or "")


@pytest.mark.parametrize(
    ("fields", "sign"),
    [
        ({"do": "spin"}, "spinning"),
        ({"do": "sleep", "seconds": 1e6}, "sleeping"),
        ({"do": "receive"}, "receiving"),
    ],
)
def test_a_program_ends_wherever_it_is_when_it_is_stopped(
    rig: Rig, fields: dict[str, object], sign: str
) -> None:
    """In a loop, asleep, or blocked in receive: the outcome carries the reason."""
    instance = rig.launch("behave", **fields)
    until(saw(instance, sign))
    asked = time.monotonic()
    instance.cancel("enough")
    outcome = rig.outcome(instance)

    assert ("cancelled", "enough") == (outcome.status, outcome.message)
    assert time.monotonic() - asked < 10


def test_cpu_time_over_the_grant_ends_a_program_with_the_reason(rig: Rig) -> None:
    """The message names what was used and what was granted."""
    outcome = rig.outcome(rig.launch("behave", Budgets(max_cpu_s=0.3), do="spin"))

    assert ("exceeded", "quota") == (outcome.status, outcome.code)
    assert "CPU" in (outcome.message or "")
    assert "0.3" in (outcome.message or "")


def test_memory_over_the_grant_ends_a_program_with_the_reason(tmp_path: Path) -> None:
    """The message names the grant."""
    rig = Rig(tmp_path, limits=LimitsConfig(memory_mb=64))
    rig.install("behave")
    outcome = rig.outcome(rig.launch("behave", do="allocate"))

    assert ("exceeded", "quota") == (outcome.status, outcome.code)
    assert "64 MiB" in (outcome.message or "")
    rig.close()


def test_a_deadline_ends_a_program_that_sleeps(rig: Rig) -> None:
    """Wall time counts also while nothing is computed."""
    outcome = rig.outcome(rig.launch("behave", Budgets(deadline_s=0.2), do="sleep", seconds=1e6))

    assert ("exceeded", "timeout") == (outcome.status, outcome.code)


def test_the_token_budget_of_a_launch_holds_over_its_generations(rig: Rig) -> None:
    """Thirty tokens for two generations of twenty-four: the second one is cut."""
    made = rig.run(
        "behave",
        Budgets(max_tokens_total=30),
        do="generate",
        prompt=PROMPT,
        max_tokens=24,
        repeat=2,
        temperature=0.0,
    )

    assert [WANTED, WANTED[:6]] == made


def test_a_flood_is_slowed_to_the_clients_pace(rig: Rig) -> None:
    """Unread output stays within the limit, nothing is lost, and the program ends well."""
    instance = rig.launch("behave", do="flood", messages=3000)
    bound = rig.limits.event_bytes
    until(lambda: instance.events.unacked_bytes >= bound)
    most, received = 0, 0
    while not instance.done:
        most = max(most, instance.events.unacked_bytes)
        for event in instance.events.read(0, 100_000):
            received += event.kind == "message"
            instance.events.ack(event.seq)
    received += sum(event.kind == "message" for event in events(instance))

    assert 3000 == received
    assert most < bound + 2000


def test_a_client_that_never_reads_gives_the_program_an_error(tmp_path: Path) -> None:
    """`exhausted` after the stall time, and the limit is named."""
    rig = Rig(tmp_path, limits=LimitsConfig(send_stall_s=0.05))
    rig.install("behave")
    instance = rig.launch("behave", do="flood", messages=3000)
    until(lambda: instance.done)
    outcome = instance.info().outcome

    assert outcome is not None
    assert ("error", "exhausted") == (outcome.status, outcome.code)
    assert "limits.event_bytes" in (outcome.message or "")
    rig.close()


def test_what_a_program_prints_arrives_line_by_line(rig: Rig) -> None:
    """As stdout events, in order."""
    instance = rig.launch("behave", do="print", lines=3)
    until(lambda: instance.done)

    lines = [event.data.decode() for event in events(instance) if event.kind == "stdout"]
    assert ["line 0", "line 1", "line 2"] == [line[:6] for line in lines]


def test_an_exception_is_the_programs_error_with_its_own_line(rig: Rig) -> None:
    """The message names the author's file and line, the log has the traceback."""
    instance = rig.launch("behave", do="raise")
    until(lambda: instance.done)
    outcome = instance.info().outcome

    assert outcome is not None
    assert "error" == outcome.status
    assert "as asked" in (outcome.message or "")
    assert "main.py" in (outcome.message or "")
    assert any(event.kind == "log" and b"ValueError" in event.data for event in events(instance))


def test_a_trap_leaves_nothing_behind(rig: Rig) -> None:
    """A generation that runs on a fork of a context: all pages are free once it has ended."""
    outcome = rig.outcome(rig.launch("behave", do="leak", prompt=PROMPT))

    assert outcome.status in ("trapped", "error")


def test_messages_reach_a_waiting_program(rig: Rig) -> None:
    """And the end of the input is told apart from a message."""
    instance = rig.launch("behave", do="receive")
    until(saw(instance, "receiving"))
    instance.deliver("ping")
    assert "ping" in (rig.outcome(instance).result or "")

    closed = rig.launch("behave", do="receive")
    closed.close_input()
    assert "null" == rig.outcome(closed).result


def test_an_unknown_program_is_not_found_and_the_known_ones_are_named(rig: Rig) -> None:
    """The way out stands in the message."""
    with pytest.raises(PieError, match="behave") as refused:
        rig.launch("behaves")
    assert "not-found" == refused.value.code


def test_the_number_of_programs_is_limited(tmp_path: Path) -> None:
    """The limit is named, and a place is free again once a program has ended."""
    rig = Rig(tmp_path, limits=LimitsConfig(instances=1))
    rig.install("behave")
    first = rig.launch("behave", do="receive")
    with pytest.raises(PieError, match=r"limits\.instances=1") as refused:
        rig.launch("behave", do="receive")
    assert "quota" == refused.value.code
    first.close_input()
    rig.outcome(first)
    rig.run("behave", do="log")
    rig.close()


@pytest.fixture
def closing(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.install("behave")
    yield rig
    rig.scheduler.stop()


def test_closing_lets_programs_end_and_then_ends_them(closing: Rig) -> None:
    """The outcome says that the daemon was shutting down; nothing new is started."""
    instance = closing.launch("behave", do="sleep", seconds=1e6)
    until(saw(instance, "sleeping"))
    closing.supervisor.close(0.01)
    outcome = instance.info().outcome

    assert outcome is not None
    assert ("cancelled", "interrupted") == (outcome.status, outcome.code)
    with pytest.raises(PieError, match="shutting down"):
        closing.launch("behave", do="log")
