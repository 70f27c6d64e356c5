"""Queues and broadcasts: who gets what, in which order, and what a full one says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pie_daemon.errors import PieError
from pie_daemon.host.topics import Subscription, Topics
from pie_daemon.runtime.config import LimitsConfig

LIMITS = LimitsConfig(topic_messages=3, topic_bytes=1000, messaging_bytes=2000)


@pytest.fixture
def topics() -> Topics:
    return Topics(lambda: LIMITS)


def no_wake() -> None:
    return None


def refusal(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(PieError) as refused:
        function(*arguments)
    assert "exhausted" == refused.value.code
    return refused.value.message


def drained(subscription: Subscription) -> list[str]:
    taken = []
    while (text := subscription.take()) is not None:
        taken.append(text)
    return taken


def test_a_queue_keeps_its_messages_until_someone_pulls(topics: Topics) -> None:
    """In order, each once, and without a trace afterwards."""
    for text in ("one", "two"):
        topics.push("ann", "jobs", text)
    first, second = (topics.pull("ann", "jobs", no_wake) for _ in range(2))

    assert ["one", "two", None] == [first.take(), second.take(), first.take()]
    first.close()
    second.close()
    assert (0, 0) == (topics.num_topics, topics.used_bytes("ann"))


def test_every_listener_gets_every_message(topics: Topics) -> None:
    """From its subscription on; a broadcast that nobody hears is gone."""
    topics.publish("ann", "news", "early")
    listeners = [topics.listen("ann", "news", no_wake) for _ in range(3)]
    for number in range(3):
        topics.publish("ann", "news", str(number))

    assert [["0", "1", "2"]] * 3 == [drained(one) for one in listeners]
    topics.publish("ann", "news", "again")
    assert [["again"]] * 3 == [drained(one) for one in listeners]


def test_users_and_kinds_never_meet(topics: Topics) -> None:
    """The same name is another topic for another user, and for queue and broadcast."""
    ears = [topics.listen("ann", "t", no_wake), topics.listen("bob", "t", no_wake)]
    queue = topics.pull("bob", "t", no_wake)
    topics.publish("ann", "t", "to ann")
    topics.push("ann", "t", "for ann")

    assert [["to ann"], [], []] == [drained(one) for one in (*ears, queue)]


def test_pullers_are_served_in_the_order_in_which_they_began_to_wait(topics: Topics) -> None:
    """Also when the first is quick to come back; one that never asks is passed over."""
    woken: list[int] = []
    pullers = [topics.pull("ann", "jobs", lambda n=n: woken.append(n)) for n in range(4)]
    for puller in pullers[:3]:
        puller.wait_in_line()
    served: list[int] = []
    for number in range(9):
        topics.push("ann", "jobs", str(number))
        turn = woken.pop()
        assert str(number) == pullers[turn].take()
        pullers[turn].wait_in_line()
        served.append(turn)

    assert [0, 1, 2] * 3 == served
    assert [] == woken


def test_who_stops_waiting_is_not_served(topics: Topics) -> None:
    """A look without success leaves the line."""
    gone, waiting = (topics.pull("ann", "jobs", no_wake) for _ in range(2))
    gone.wait_in_line()
    assert gone.take() is None
    waiting.wait_in_line()
    topics.push("ann", "jobs", "x")

    assert (False, True) == (gone.ready, waiting.ready)


@pytest.mark.parametrize("others", ["none", "idle", "waiting"])
def test_a_message_handed_to_a_puller_that_ends_is_not_lost(topics: Topics, others: str) -> None:
    """It is the next one of the queue again, or the next waiter's."""
    woken: list[str] = []
    ended = topics.pull("ann", "jobs", no_wake)
    ended.wait_in_line()
    other = topics.pull("ann", "jobs", lambda: woken.append("other"))
    if others == "waiting":
        other.wait_in_line()
    if others == "none":
        other.close()
    topics.push("ann", "jobs", "first")
    topics.push("ann", "jobs", "second")
    woken.clear()
    ended.close()
    reader = topics.pull("ann", "jobs", no_wake) if others == "none" else other

    assert ["first", "second"] == sorted(drained(reader))
    assert topics.used_bytes("ann") == 0


def test_a_full_queue_refuses_and_loses_nothing(topics: Topics) -> None:
    """The refusal names the topic and the limit, by count and by bytes."""
    for number in range(3):
        topics.push("ann", "jobs", str(number))
    by_count = refusal(topics.push, "ann", "jobs", "3")
    by_bytes = refusal(topics.push, "ann", "large", "x" * 1000)

    assert "'jobs'" in by_count
    assert "limits.topic_messages=3" in by_count
    assert "limits.topic_bytes=1000" in by_bytes
    assert ["0", "1", "2"] == drained(topics.pull("ann", "jobs", no_wake))


def test_a_slow_listener_is_told_to_the_publisher(topics: Topics) -> None:
    """Nobody gets what one has no room for; afterwards it goes on."""
    slow, quick = (topics.listen("ann", "news", no_wake) for _ in range(2))
    for number in range(3):
        topics.publish("ann", "news", str(number))
        quick.take()
    refused = refusal(topics.publish, "ann", "news", "3")

    assert "'news'" in refused
    assert "limits.topic_messages=3" in refused
    assert [["0", "1", "2"], []] == [drained(slow), drained(quick)]
    topics.publish("ann", "news", "4")
    assert [["4"], ["4"]] == [drained(slow), drained(quick)]


def test_what_one_user_may_leave_waiting_is_bounded_over_all_topics(topics: Topics) -> None:
    """Others are not touched, and what ends gives its room back."""
    ears = [topics.listen("ann", f"{number}", no_wake) for number in range(3)]
    for number in range(2):
        topics.publish("ann", f"{number}", "x" * 900)
    assert "limits.messaging_bytes=2000" in refusal(topics.publish, "ann", "2", "x" * 900)
    topics.push("bob", "jobs", "x" * 900)
    ears[0].close()
    topics.publish("ann", "2", "x" * 900)

    for ear in ears[1:]:
        ear.close()
    assert 0 == topics.used_bytes("ann")


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_names_are_bounded(topics: Topics, name: str) -> None:
    """None at all is a mistake, and a name is not a place for data."""
    for function in (topics.push, topics.publish):
        with pytest.raises(PieError) as refused:
            function("ann", name, "text")
        assert "invalid-argument" == refused.value.code
