"""The guest package and the shipped programs as real components over the real runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_backend.batch import Adjustment, Sampling
from pie_backend.dummy import expected_logprobs, expected_tokens
from pie_daemon.runtime.events import Event
from pie_daemon.runtime.instance import Instance
from support.rig import Rig, events
from support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def finished(rig: Rig, instance: Instance) -> tuple[Any, list[Event]]:
    """The result and every event; none is acknowledged, as so few fit the client's window."""
    until(lambda: instance.done)
    sent = events(instance)
    outcome = rig.outcome(instance)
    assert outcome.result is not None, outcome
    return json.loads(outcome.result), sent


def test_every_function_of_the_guest_package_reaches_the_host(rig: Rig) -> None:
    """One program calls them all; its docstring says what has to come back."""
    rig.install("guest-sdk")
    rig.install("echo")
    instance = rig.launch("guest-sdk")
    instance.deliver("ping")
    instance.deliver_blob("data", b"\x00\xff")
    instance.close_input()
    result, sent = finished(rig, instance)

    assert {
        "model": {
            "opened": True,
            "round_trip": True,
            "bytes": True,
            "template": True,
            "unknown": "not-found",
        },
        "context": {
            "lengths": [3, 8, 8, 5],
            "tokens": True,
            "fork": True,
            "past_end": "invalid-argument",
            "foreign_token": "invalid-argument",
        },
        "hidden": {
            "shown": True,
            "hidden": True,
            "priority": True,
            "nothing": "invalid-argument",
            "outside": "invalid-argument",
        },
        "saved": {
            "opened": True,
            "durable": True,
            "names": True,
            "model": True,
            "gone": "not-found",
            "nameless": "invalid-argument",
        },
        "generation": {
            "same": True,
            "guessed": True,
            "seeded": True,
            "length": True,
            "stop_token": True,
            "usage": True,
            "busy": "busy",
            "waited": True,
            "cancelled": True,
            "refused": "invalid-argument",
        },
        "constraints": {
            "texts": True,
            "finished": True,
            "chat": True,
            "forked": True,
            "rolled_back": True,
            "followed": True,
            "formats": True,
            "atomic": True,
            "masked": True,
            "refused": ["invalid-argument"] * 3,
        },
        "chat": {"turns": 5, "prefix_kept": True, "calls": True, "biases": True},
        "session": {"text": "ping", "blob": ["data", [0, 255]], "end": True},
        "events": {"timeout": True, "timer": True},
        "storage": {"value": True, "keys": True, "gone": True, "refused": "quota"},
        "messaging": {"queue": True, "broadcast": True, "silence": True, "refused": "exhausted"},
        "runtime": {
            "named": True,
            "budget": True,
            "child": True,
            "ended": "cancelled",
            "unknown": "not-found",
            "refused": "invalid-argument",
        },
    } == result
    assert [
        ("message", "", b"hello"),
        ("message", "", b'{"type":"note","n":1}'),
        ("blob", "bytes", b"\x00\xff"),
        ("log", "info", b"a line"),
        ("log", "warning", b"careful"),
    ] == [(event.kind, event.name, event.data) for event in sent if event.kind != "outcome"]


def test_a_completion_is_the_same_streamed_and_at_once(rig: Rig) -> None:
    """The deltas add up to the text, and the tokens are the backend's."""
    rig.install("text-completion")
    asked = {"prompt": "hello", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
    whole = rig.run("text-completion", **asked)
    instance = rig.launch("text-completion", **asked, stream=True)
    streamed, happened = finished(rig, instance)
    sent = [json.loads(event.data) for event in happened if event.kind == "message"]

    assert whole == streamed
    assert ("length", expected_tokens(list(b"hello"), 20)) == (
        whole["finish_reason"],
        whole["tokens"],
    )
    assert whole["text"] == "".join(e["text"] for e in sent if e["type"] == "delta")
    assert ["usage"] == [e["type"] for e in sent if e["type"] != "delta"]
    assert (5, 20) == (sent[-1]["prompt_tokens"], sent[-1]["generated_tokens"])


def test_chat_answers_a_conversation(rig: Rig) -> None:
    """Through the model's template, with the same options."""
    rig.install("chat")
    asked = [{"role": "user", "content": "hello"}]
    answer = rig.run("chat", messages=asked, max_tokens=8, temperature=0, ignore_eos=True)
    assert expected_tokens(list(b"hello"), 8) == answer["tokens"]


def test_penalties_and_logprobs_cross_the_border_and_back(rig: Rig) -> None:
    """Options as a client writes them; one record per token, exact, streamed or not."""
    rig.install("text-completion")
    asked = {"prompt": "hello", "max_tokens": 9, "temperature": 0, "ignore_eos": True}
    options = {"repetition_penalty": 1.5, "logit_bias": {"5": -100, "6": 2}, "logprobs": 3}
    adjustment = Adjustment(repetition_penalty=1.5, logit_bias={5: -100.0, 6: 2.0})
    wanted = expected_tokens(list(b"hello"), 9, Sampling(adjustment=adjustment))
    known = expected_logprobs(wanted, 3, rig.vocabulary.size)
    for stream in (False, True):
        answer = rig.run("text-completion", **asked, **options, stream=stream)
        assert wanted == answer["tokens"]
        assert [
            {"chosen": one.chosen, "top": [list(pair) for pair in one.top]} for one in known
        ] == answer["logprobs"]
    assert "logprobs" not in rig.run("text-completion", **asked)


def test_an_id_that_the_model_does_not_have_is_refused_by_name(rig: Rig) -> None:
    """The program cannot know the vocabulary; the scheduler does."""
    rig.install("text-completion")
    outcome = rig.outcome(rig.launch("text-completion", prompt="x", logit_bias={"512": 1}))
    assert ("error", "invalid-argument") == (outcome.status, outcome.code)
    assert "token 512 is outside the vocabulary" in (outcome.message or "")


def test_the_notebook_example_keeps_its_notes(rig: Rig) -> None:
    """From run to run, and in their order."""
    rig.install("notebook")

    assert {"notes": ["one"]} == rig.run("notebook", note="one")
    assert {"notes": ["one", "two"]} == rig.run("notebook", note="two")
    assert {"notes": []} == rig.run("notebook", forget=True)


def test_the_team_example_answers_every_question(rig: Rig) -> None:
    """Several workers share them, and nothing is left behind."""
    rig.install("team")
    questions = [f"question {number}" for number in range(6)]
    result = rig.run("team", questions=questions, workers=3)

    assert set(questions) == set(result["answers"])
    assert (3, 6) == (len(result["answered"]), sum(result["answered"]))
    assert 0 == rig.topics.num_topics


def test_a_refusal_reaches_the_client_in_the_programs_words(rig: Rig) -> None:
    """Which key, what is allowed, what was given."""
    rig.install("text-completion")
    outcome = rig.outcome(rig.launch("text-completion", prompt="x", max_tokens="many"))
    assert "error" == outcome.status
    assert '`max_tokens` must be an integer at least 1, not "many"' == outcome.message
    assert "invalid-argument" == outcome.code


def test_a_bug_reaches_the_client_with_the_authors_line(rig: Rig) -> None:
    """Its own code, since no one but the author can do anything about it."""
    rig.install("behave")
    outcome = rig.outcome(rig.launch("behave", do="raise"))
    assert "program-error" == outcome.code
    assert (outcome.message or "").startswith("ValueError: as asked (main.py:")
