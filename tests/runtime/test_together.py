"""Programs that store, talk to each other and launch each other, as real components."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pie_daemon.runtime.instance import Instance
from pie_daemon.runtime.outcome import Budgets, Outcome
from support.rig import Rig, events, saw
from support.waiting import until

GREEDY = {"do": "generate", "prompt": "hello", "ignore_eos": True}


def result(rig: Rig, instance: Instance) -> Any:
    outcome = rig.outcome(instance)
    assert outcome.result is not None, outcome
    return json.loads(outcome.result)


def children_of(rig: Rig, parent: Instance) -> list[Instance]:
    """The instances that a `behave` parent says it has launched."""
    until(lambda: any(event.kind == "message" for event in events(parent)))
    said = next(event for event in events(parent) if event.kind == "message")
    return [rig.supervisor.get(child) for child in said.data.decode().split()]


def parent(
    rig: Rig, *children: dict[str, Any], then: str, budgets: Budgets | None = None
) -> Instance:
    return rig.launch("behave", budgets, do="parent", children=list(children), then=then)


def ended(instance: Instance) -> Outcome:
    until(lambda: instance.done)
    assert instance.outcome is not None
    return instance.outcome


class TestStorage:
    def test_what_one_run_stores_the_next_one_finds(self, rig: Rig) -> None:
        """And other users do not."""
        assert ["a", "b"] == rig.run("behave", do="store", b="2", a="1")
        assert "1" == rig.run("behave", do="stored", key="a")
        stranger = rig.supervisor.launch("behave", '{"do": "stored", "key": "a"}', "stranger")
        assert result(rig, stranger) is None

    def test_a_program_that_waits_for_the_disk_can_be_stopped(self, rig: Rig) -> None:
        """Like one that waits for anything else."""
        instance = rig.launch("behave", do="count_up")
        until(saw(instance, "3"))
        instance.cancel("enough")

        assert "cancelled" == rig.outcome(instance).status


class TestMessaging:
    def test_workers_share_a_queue_and_each_waits_its_turn(self, rig: Rig) -> None:
        """Three wait for three jobs, and each gets one; then each gets its order to stop."""
        workers = [rig.launch("behave", do="work", topic="jobs") for _ in range(3)]
        for worker in workers:
            until(saw(worker, "pulling"))
        waiting = rig.topics._queues["somebody", "jobs"].waiting
        for _ in range(4):
            until(lambda: len(waiting) == 3)
            rig.run("behave", do="push", topic="jobs", texts=["1", "2", "3"])
        until(lambda: len(waiting) == 3)
        rig.run("behave", do="push", topic="jobs", texts=["stop"] * 3)
        done = [result(rig, worker) for worker in workers]

        assert [4, 4, 4] == [len(one) for one in done]
        assert sorted(["1", "2", "3"] * 4) == sorted(job for one in done for job in one)
        assert 0 == rig.topics.num_topics

    def test_a_listener_hears_everything_on_several_topics(self, rig: Rig) -> None:
        """A hundred messages, taken as they come through wait-any; another user's are not there."""
        ear = rig.launch("behave", do="hear", topics=["a", "b"], count=100)
        until(saw(ear, "listening"))
        rig.topics.publish("stranger", "a", "not for them")
        for topic in ("a", "b"):
            texts = [f"{topic}{number}" for number in range(50)]
            rig.run("behave", do="publish", topic=topic, texts=texts)
        heard = result(rig, ear)

        assert [[f"{t}{n}" for n in range(50)] for t in "ab"] == [
            [text for text in heard if text[0] == t] for t in "ab"
        ]

    def test_the_end_frees_what_was_subscribed(self, rig: Rig) -> None:
        """Nobody fills the line of a listener that is gone."""
        ear = rig.launch("behave", do="listen_and_end", topic="news")
        until(saw(ear, "listening"))
        assert 1 == rig.topics.num_topics
        rig.topics.publish("somebody", "news", "hello")
        ear.close_input()

        assert "error" == rig.outcome(ear).status
        assert (0, 0) == (rig.topics.num_topics, rig.topics.used_bytes("somebody"))


class TestChildren:
    def test_outcomes_reach_the_parent(self, rig: Rig) -> None:
        """Results as they are, errors with their code, whatever a child has printed before."""
        results = rig.run(
            "behave",
            do="parent",
            children=[
                {"input": {"do": "stored", "key": "x"}},
                {"input": {"do": "print", "lines": 20_000}},
                {"input": {"do": "flood", "messages": 3000}},
                {"input": {"do": "raise"}},
                {"input": {"do": "exit"}},
                {"input": {"do": "spin"}, "max_cpu_s": 0.2},
                {"input": {"do": "sleep", "seconds": 1e6}, "deadline_s": 0.2},
            ],
        )

        assert [None, 20_000, 3000] == results[:3]
        assert ["program-error"] * 2 + ["quota", "timeout"] == [code for code, _ in results[3:]]

    def test_waiting_for_a_child_is_waiting_for_anything(self, rig: Rig) -> None:
        """Its end wakes a parent that also waits for a timer."""
        assert "child" == rig.run("behave", do="race", child={"do": "log"})

    def test_a_parent_cancels_a_child(self, rig: Rig) -> None:
        """Who did it is in the outcome."""
        asleep = {"input": {"do": "sleep", "seconds": 1e6}}
        [(code, message)] = result(rig, parent(rig, asleep, then="cancel"))

        assert ("cancelled", "cancelled by the program that launched it") == (code, message)

    @pytest.mark.parametrize("how", ["returns", "cancelled", "generations"])
    def test_children_end_with_their_parent(self, rig: Rig, how: str) -> None:
        """When it returns, when it is stopped, and through more than one generation."""
        asleep: dict[str, Any] = {"do": "sleep", "seconds": 1e6}
        if how == "generations":
            asleep = {"do": "parent", "children": [{"input": asleep}], "then": "wait"}
        instance = parent(rig, {"input": asleep}, then="wait")
        family = children_of(rig, instance)
        if how == "generations":
            family += children_of(rig, family[0])
        if how == "cancelled":
            instance.cancel("enough")
        else:
            instance.close_input()

        outcomes = [ended(child) for child in family]
        assert {("cancelled", "the program that launched it has ended")} == {
            (outcome.status, outcome.message) for outcome in outcomes
        }

    def test_a_detached_child_outlives_its_parent(self, rig: Rig) -> None:
        """And goes on to its own end; what it says stays readable."""
        instance = parent(rig, {"input": {"do": "receive"}}, then="detach")
        [child] = children_of(rig, instance)
        assert [child.id] == result(rig, instance)
        child.deliver("go on")

        assert '"go on"' == ended(child).result
        assert ["message", "outcome"] == [event.kind for event in events(child)]

    def test_children_spend_their_parents_tokens(self, rig: Rig) -> None:
        """Together they get what the launch was given, and no more."""
        child = {"input": {**GREEDY, "max_tokens": 30}}
        budgets = Budgets(max_tokens_total=50)
        made = result(rig, parent(rig, child, child, then="results", budgets=budgets))

        assert 50 == sum(len(tokens) for one in made for tokens in one)

    def test_a_childs_own_budget_cuts_what_it_gets(self, rig: Rig) -> None:
        """A larger one than its parent's changes nothing."""
        small = {"input": {"do": "budget"}, "max_tokens_total": 10, "max_kv_pages": 4}
        large = {"input": {"do": "budget"}, "max_tokens_total": 10**6, "deadline_s": 10**6}
        budgets = Budgets(max_tokens_total=50, max_kv_pages=8, max_cpu_s=7, deadline_s=100)
        left = result(rig, parent(rig, small, large, then="results", budgets=budgets))

        assert [(10, 4), (50, 8)] == [(o["max_tokens_total"], o["max_kv_pages"]) for o in left]
        assert all(0 < one["max_cpu_s"] < 7 and 0 < one["deadline_s"] < 100 for one in left)

    def test_children_use_their_parents_cpu_time(self, rig: Rig) -> None:
        """A child in a loop uses up the grant of all of them."""
        spin = {"input": {"do": "spin"}}
        instance = parent(rig, spin, then="wait", budgets=Budgets(max_cpu_s=0.3))
        [child] = children_of(rig, instance)

        assert ("exceeded", "quota") == (ended(child).status, ended(child).code)
        assert "shared by a program and what it launches" in (ended(child).message or "")
        instance.close_input()
        rig.outcome(instance)

    def test_children_share_their_parents_pages(self, rig: Rig) -> None:
        """What one holds the other cannot."""
        child = {"input": {**GREEDY, "max_tokens": 40}}
        budgets = Budgets(max_kv_pages=2)
        [(code, message)] = result(rig, parent(rig, child, then="results", budgets=budgets))

        assert "quota" == code
        assert "may hold 2 pages" in message

    def test_the_number_of_children_is_bounded(self, tmp_path: Path) -> None:
        """Over the whole family, and only while they run."""
        rig = Rig(tmp_path)
        rig.limits = msgspec.structs.replace(rig.limits, children=2)
        rig.install("behave")
        asleep = {"input": {"do": "sleep", "seconds": 1e6}}
        outcome = rig.outcome(parent(rig, *[asleep] * 3, then="wait"))

        assert ("error", "quota") == (outcome.status, outcome.code)
        assert "limits.children=2" in (outcome.message or "")
        until(lambda: not any(one.state != "finished" for one in rig.supervisor.instances()))
        short = {"input": {"do": "stored", "key": "x"}}
        assert [None] * 2 == result(rig, parent(rig, *[short] * 2, then="results"))
        rig.close()

    def test_launches_go_only_so_deep(self, rig: Rig) -> None:
        """The refusal names the limit."""
        depth, code, message = rig.run("behave", do="descend")

        assert (rig.limits.child_depth, "quota") == (depth, code)
        assert "limits.child_depth=4" in message
