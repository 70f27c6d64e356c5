"""Which replica a context goes to, as a pure decision."""

from __future__ import annotations

from pie_daemon.scheduler.replicas.placement import FAR, PrefixAware, Routed


def test_the_longest_known_beginning_wins() -> None:
    """As long as its replica is not too busy; one request more than that, and it does not."""
    policy = PrefixAware(3, slack=2)
    assert 1 == policy.choose([0, 5, 3], [0, 2, 0])
    assert 2 == policy.choose([0, 5, 3], [0, 3, 0])


def test_without_a_beginning_the_least_busy_and_then_in_turns() -> None:
    """Equal ones are taken one after the other."""
    policy = PrefixAware(3, slack=2)
    assert 2 == policy.choose([0, 0, 0], [2, 2, 1])
    assert [0, 1, 2, 0] == [policy.choose([0, 0, 0], [1, 1, 1]) for _ in range(4)]


def test_the_dead_get_nothing() -> None:
    """Whatever they know; when all are dead the first one is to say why."""
    policy = PrefixAware(2, slack=100)
    assert 1 == policy.choose([9, 0], [None, 50])
    assert 0 == policy.choose([0, 9], [None, None])


def test_forks_leave_late() -> None:
    """At a multiple of what new contexts put up with, or when their replica is dead."""
    policy = PrefixAware(2, slack=2)
    assert not policy.is_far_off(0, [2 * FAR, 0])
    assert policy.is_far_off(0, [2 * FAR + 1, 0])
    assert policy.is_far_off(0, [None, 0])
    assert not policy.is_far_off(0, [None, None])


def test_where_beginnings_went_is_bounded() -> None:
    """The least recently used are forgotten; a beginning counts up to its first unknown page."""
    routed = Routed(max_keys=3)
    routed.add([b"a", b"b"], 0)
    routed.add([b"a", b"c"], 1)
    assert [2, 1] == [routed.num_known([b"a", b"b"], replica) for replica in (0, 1)]
    assert 2 == routed.num_known([b"a", b"c"], 1)
    routed.add([b"d"], 1)
    assert 0 == routed.num_known([b"b"], 0)
