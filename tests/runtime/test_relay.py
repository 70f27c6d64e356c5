"""Generations that are relayed to the client, through a real component."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_backend.dummy import expected_tokens
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.events import Event
from pie_daemon.runtime.instance import Instance
from pie_daemon.runtime.outcome import Budgets
from support.rig import Letters, Rig, events
from support.waiting import until

LIMIT = 100
"""Bytes that a slow client may leave unread: two events."""
MANY = 3000
"""Tokens, of which the dummy makes a few before a program has come to relay them."""
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}


def texts(instance: Instance, kept: list[Event] | None = None) -> list[str]:
    """Messages, those of `delta` as their text, and the outcome."""
    found = []
    for event in events(instance) if kept is None else kept:
        said = event.data.decode() if event.kind == "message" else event.kind
        found.append(json.loads(said)["text"] if said.startswith("{") else said)
    return found


def relay(rig: Rig, *prompts: str, **options: Any) -> tuple[list[str], list[Any]]:
    """What the client has heard, and the result."""
    given = {"prompts": prompts, "max_tokens": 24, **GREEDY, **options}
    instance = rig.launch("behave", do="relay", **given)
    until(lambda: instance.done)
    heard = texts(instance)
    assert "outcome" == heard.pop()
    result = rig.outcome(instance).result
    assert result is not None
    return heard, json.loads(result)


def wanted(prompt: str, num_tokens: int = 24) -> tuple[list[int], str]:
    """Tokens, and the letters that they are."""
    tokens = expected_tokens(list(prompt.encode()), num_tokens)
    return tokens, b"".join(map(Letters().token_bytes, tokens)).decode()


def test_the_text_is_sent_before_what_the_program_says_next(rig: Rig) -> None:
    """In order, and the program has what an iteration would have given it."""
    tokens, text = wanted("hello")
    heard, result = relay(rig, "hello")
    assert "over" == heard.pop()
    assert text == "".join(heard)
    assert [[tokens, text, "length"]] == result


def test_chunks_are_as_large_as_was_asked(rig: Rig) -> None:
    """At least that; or everything at the end."""
    _, text = wanted("hello")
    first, *_ = heard = relay(rig, "hello", chunk_tokens=16)[0][:-1]
    assert text == "".join(heard)
    assert 16 <= len(first)
    assert [text, "over"] == relay(rig, "hello", chunk_tokens=0)[0]


def test_what_was_taken_before_is_not_sent(rig: Rig) -> None:
    """The program has it, and may do with it what it likes."""
    tokens, text = wanted("hello")
    heard, result = relay(rig, "hello", first=3, chunk_tokens=2)
    sent = "".join(heard[:-1])
    assert text.endswith(sent)
    assert len(sent) <= 24 - 2
    assert [[tokens, text, "length"]] == result


def test_two_generations_of_one_program_come_one_after_the_other(rig: Rig) -> None:
    """They run together; the second is sent when the program asks for that."""
    heard, result = relay(rig, "hello", "world")
    between = heard.index("over")
    one, two = wanted("hello")[1], wanted("world")[1]
    assert (one, two) == ("".join(heard[:between]), "".join(heard[between + 1 : -1]))
    assert [one, two] == [text for _, text, _ in result]


def test_many_programs_do_not_mix_their_texts(rig: Rig) -> None:
    """Each client hears its own program."""
    given = {"do": "relay", "max_tokens": 24, **GREEDY}
    instances = [rig.launch("behave", prompts=[f"prompt {n}"], **given) for n in range(16)]
    until(lambda: all(instance.done for instance in instances))
    for number, instance in enumerate(instances):
        assert wanted(f"prompt {number}")[1] == "".join(texts(instance)[:-2])


def test_a_budget_ends_a_relay_like_any_generation(rig: Rig) -> None:
    """What was granted is sent."""
    given = {"prompts": ["hello"], "max_tokens": 24, **GREEDY}
    instance = rig.launch("behave", Budgets(max_tokens_total=5), do="relay", **given)
    until(lambda: instance.done)
    assert wanted("hello", 5)[1] == "".join(texts(instance)[:-2])
    assert "budget" in (rig.outcome(instance).result or "")


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Rig]:
    """Its clients may leave little unread, and are given up soon."""
    rig = Rig(tmp_path, limits=LimitsConfig(event_bytes=LIMIT, send_stall_s=0.05))
    rig.install("behave")
    yield rig
    rig.close()


def acknowledge_until_done(instance: Instance) -> list[str]:
    """What is heard meanwhile. The unread output is never more than an event over the limit."""
    heard: list[str] = []
    while not instance.done:
        new = events(instance)
        assert sum(event.size_bytes for event in new[:-1]) < LIMIT
        heard += texts(instance, new)
        if new:
            instance.events.ack(new[-1].seq)
    return heard + texts(instance)


def test_a_relay_goes_at_its_clients_pace(slow: Rig) -> None:
    """Unread output stays within the limit, and nothing is lost."""
    given = {"prompts": ["hello"], "max_tokens": MANY, **GREEDY}
    instance = slow.launch("behave", do="relay", **given)
    heard = acknowledge_until_done(instance)
    assert [wanted("hello", MANY)[1], "over", "outcome"] == ["".join(heard[:-2]), *heard[-2:]]


def test_a_client_that_stays_away_exhausts_a_relay_which_may_go_on(slow: Rig) -> None:
    """The program is told, and a second try sends everything that is left, once."""
    tokens, text = wanted("hello", MANY)
    given = {"prompt": "hello", "max_tokens": MANY, **GREEDY}
    instance = slow.launch("behave", do="relay_again", **given)
    instance.deliver("go on")
    until(lambda: not instance.inbox.ready)
    assert text.startswith("".join(texts(instance)))
    heard = acknowledge_until_done(instance)
    assert [text, "outcome"] == ["".join(heard[:-1]), heard[-1]]
    assert ["exhausted", tokens] == json.loads(slow.outcome(instance).result or "")


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_relay_that_waits_for_its_client_can_be_ended(tmp_path: Path, how: str) -> None:
    """The outcome is the last event."""
    rig = Rig(tmp_path, limits=LimitsConfig(event_bytes=LIMIT))
    rig.install("behave")
    budgets = Budgets(deadline_s=1.0 if how == "deadline" else None)
    given = {"prompts": ["hello"], "max_tokens": MANY, **GREEDY}
    instance = rig.launch("behave", budgets, do="relay", **given)
    until(lambda: instance.events.unacked_bytes >= LIMIT or instance.done)
    if how == "cancel":
        instance.cancel("enough")
    until(lambda: instance.done)
    assert "outcome" == texts(instance)[-1]
    assert {"cancel": "cancelled", "deadline": "exceeded"}[how] == rig.outcome(instance).status
    rig.close()
