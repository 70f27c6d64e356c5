"""Turns by tokens computed, and the bound on waiting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.fairness import SCALE, Clock, Fairness, Share, fair_order
from pie_daemon.scheduler.owners import Owner, OwnerTable
from support.stepping import Stepper


@dataclass
class Fake:
    """As much of a request as the order looks at."""

    id: int
    context: Any
    cost: int


@dataclass
class Context:
    owner: Any
    priority: int = 0
    pages: list[int] = field(default_factory=list)


@dataclass
class Wait:
    """From when a share waits for its turn: what the others may be served at most until then."""

    ahead: float
    most_live: int
    served_to_others: int = 0


@dataclass
class Server:
    """Serves one request at a time, and holds every wait to the bound: of users, or of the
    families of the one user that there is."""

    max_cost: int
    families: bool = False
    quantum: int = 0
    fairness: Fairness = field(default_factory=Fairness)
    owners: OwnerTable = field(default_factory=OwnerTable)
    waiting: dict[int, Fake] = field(default_factory=dict)
    waits: dict[Share, Wait] = field(default_factory=dict)
    last_id: int = 0

    def arrive(self, user: str, root: str, cost: int, priority: int = 0) -> Fake:
        owner = self.owners.find(root) or self.owners.add(root, user)
        self.last_id += 1
        request = Fake(self.last_id, Context(owner, priority), cost)
        self.waiting[request.id] = request
        self.fairness.come(owner)
        self.begin_to_wait(owner)
        num_live = self.clock_of(owner).num_live
        for wait in self.waits.values():
            wait.most_live = max(wait.most_live, num_live)
        return request

    def share_of(self, owner: Owner) -> Share:
        return owner.root if self.families else owner.user

    def clock_of(self, owner: Owner) -> Clock:
        return owner.user.clock if self.families else self.fairness.clock

    def begin_to_wait(self, owner: Owner) -> None:
        clock, share = self.clock_of(owner), self.share_of(owner)
        ahead = max(0, share.level - clock.now) / SCALE
        self.waits.setdefault(share, Wait(ahead, clock.num_live))

    def serve(self) -> Fake:
        waiting: Any = self.waiting.values()
        request: Any = next(fair_order(waiting, lambda request: request.cost, self.quantum))
        owner = request.context.owner
        del self.waiting[request.id]
        self.fairness.admit(owner)
        self.fairness.serve(owner, request.cost)
        self.fairness.leave(owner, was_waiting=False)
        share = self.share_of(owner)
        del self.waits[share]
        turn = self.max_cost + self.quantum + 1
        for wait in self.waits.values():
            wait.served_to_others += request.cost
            assert wait.served_to_others <= wait.most_live * (2 * wait.ahead + turn)
        if any(self.share_of(one.context.owner) is share for one in self.waiting.values()):
            self.begin_to_wait(owner)
        return request


MAX_COST = 30
arrivals = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, MAX_COST)), max_size=6
)


@settings(max_examples=300, deadline=None)
@given(st.lists(arrivals, min_size=1, max_size=40))
def test_waiting_is_bounded(rounds: list[list[tuple[int, int, int]]]) -> None:
    """Whoever comes whenever and asks for whatever, nobody waits longer than the docs say."""
    server = Server(MAX_COST)
    for arriving in rounds:
        for user, root, cost in arriving:
            server.arrive(f"user-{user}", f"{user}.{root}", cost)
        if server.waiting:
            server.serve()
    while server.waiting:
        server.serve()
    assert 0 == server.fairness.clock.num_live


@settings(max_examples=200, deadline=None)
@given(st.lists(arrivals, min_size=1, max_size=40), st.sampled_from([0, 20, 100]))
def test_waiting_of_families_is_bounded(
    rounds: list[list[tuple[int, int, int]]], quantum: int
) -> None:
    """Among the families of a user too, with those preferred that have pages."""
    server = Server(MAX_COST, families=True, quantum=quantum)
    for arriving in rounds:
        for root, pages, cost in arriving:
            server.arrive("user", f"root-{root}", cost).context.pages = [1] * pages
        if server.waiting:
            server.serve()
    while server.waiting:
        server.serve()


def test_newcomers_without_end_do_not_starve_who_had_more() -> None:
    """A user far ahead gets its turn although there is always somebody new."""
    server = Server(10)
    for _ in range(20):
        server.arrive("heavy", "heavy", 10)
    server.arrive("other", "other", 10)
    for _ in range(12):
        server.serve()
    waited = 0
    for number in range(1000):
        server.arrive(f"new-{number}", f"new-{number}", 10)
        server.arrive(f"new-{number}b", f"new-{number}b", 10)
        waited += 1
        if server.serve().context.owner.user_name == "heavy":
            break

    assert waited < 100


def test_tokens_are_evened_out() -> None:
    """A user whose requests are four times as long gets a quarter of the turns."""
    server = Server(40)
    for _ in range(200):
        server.arrive("long", "long", 40)
        server.arrive("short", "short", 10)
    served = [server.serve() for _ in range(100)]
    turns = [request.context.owner.user_name for request in served]

    assert 20 == turns.count("long")


def test_families_share_what_their_user_gets() -> None:
    """Ten programs of one user get together as much as the one program of another."""
    server = Server(10)
    for _ in range(50):
        for root in range(10):
            server.arrive("many", f"many-{root}", 10)
        server.arrive("one", "one", 10)
    owners = [server.serve().context.owner for _ in range(80)]

    assert 40 == sum(owner.user_name == "one" for owner in owners)
    assert all(4 == sum(owner.name == f"many-{n}" for owner in owners) for n in range(10))


def test_a_quantum_lets_families_go_on_with_what_they_have() -> None:
    """Within it, those that hold pages go first; beyond it, who had less; never another user's."""
    server = Server(10)
    ours = {name: server.arrive("ann", name, 10) for name in ("a", "b", "c")}
    other = server.arrive("zoe", "z", 10)
    for name, level in (("a", 40), ("b", 90), ("c", 120)):
        ours[name].context.owner.root.level = level * SCALE
    ours["b"].context.pages = ours["c"].context.pages = [1]

    def order(quantum: int) -> str:
        requests: Any = server.waiting.values()
        return "".join(
            one.context.owner.name for one in fair_order(requests, lambda one: one.cost, quantum)
        )

    assert ["azbc", "bzac"] == [order(0), order(100)]
    ours["b"].context.owner.user.level = 5 * SCALE
    assert other.context.owner.name == order(100)[0]


def test_priority_orders_one_family_and_no_other() -> None:
    """The highest first, then first come; another user's turn comes all the same."""
    server = Server(10)
    priorities = {server.arrive("ann", "a", 10, priority).id: priority for priority in (0, 2, 1, 2)}
    server.arrive("zoe", "z", 10, -5)
    order = [server.serve() for _ in range(5)]
    ours = [priorities[one.id] for one in order if one.context.owner.user_name == "ann"]

    assert [2, 2, 1, 0] == ours
    assert "zoe" in [one.context.owner.user_name for one in order[:2]]


def test_nothing_is_saved_up_while_idle() -> None:
    """Who was away while others worked takes turns with them from then on."""
    server = Server(10)
    server.arrive("late", "late", 1)
    for _ in range(50):
        server.arrive("busy", "busy", 10)
    for _ in range(30):
        server.serve()
    for _ in range(10):
        server.arrive("late", "late", 10)
    turns = [server.serve().context.owner.user_name for _ in range(10)]

    assert 5 == turns.count("late")
    assert "late" in turns[:2]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(1, 12)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([8, 16]),
)
def test_a_newcomer_waits_for_a_bounded_number_of_batches(
    others: list[tuple[int, int, int]], num_pages: int
) -> None:
    """Under pressure too: until it has its first token, as many batches as what was there before
    it can take tokens, each computed at most three times."""
    stepper = Stepper(num_pages=num_pages, config=SchedulerConfig(max_batch_tokens=8))
    num_tokens = 0
    for number, (user, prompt, new) in enumerate(others):
        stepper.state.owners.add(f"o{number}", f"user-{user}")
        stepper.start([number + 1] * prompt, new, f"o{number}")
        num_tokens += prompt + new
    for _ in range(3):
        stepper.step()
    stepper.state.owners.add("late", "late")
    late = stepper.start([99] * 5, 1, "late")
    num_batches = 0
    while not stepper.state.ready(late):
        assert stepper.step() is not None
        num_batches += 1

    assert num_batches <= 3 * num_tokens + 1
