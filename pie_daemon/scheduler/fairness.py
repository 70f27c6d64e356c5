"""Whose turn it is: tokens computed, evened out between users and between the families of each.

Every share has a level, the tokens that were computed for it, and the lowest level is served next.
A clock keeps the level of somebody who always got an even part. Who comes back after a pause starts
at the clock at least, so that nobody saves up; and because the clock moves on whoever is served,
newcomers cannot keep one waiting that is ahead of it: once the clock has passed its level, they
start behind it.

The bound, which tests hold: let a share wait at level L while the clock shows C, N be the largest
number of shares that are live at once meanwhile, and M the most tokens that one turn takes. Before
its turn comes, the others are served at most N * (2 * max(0, L - C) + M + 1) tokens. For who comes
after a pause that is one turn of each other share. The same holds for the families of one user,
counted in the tokens of that user; where the order has a quantum Q, M + Q stands in place of M.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pie_daemon.scheduler.owners import Owner
    from pie_daemon.scheduler.request import Request

SCALE = 1 << 20
"""Levels are in such parts of a token, so that the clock can be divided in whole numbers."""


@dataclass(slots=True, eq=False)
class Clock:
    """The level of one who always got an even part of what was computed."""

    now: int = 0
    num_live: int = 0
    """Shares with a live request."""
    turn: int = 0
    """How many were served."""


@dataclass(slots=True, eq=False)
class Share:
    """What was computed for one user or one family."""

    level: int = 0
    last_turn: int = 0
    """When it was last served; the longest ago comes first among equals."""
    num_live: int = 0
    """Its requests that have not ended."""
    num_waiting: int = 0
    """Those of them that are not admitted."""
    num_owners: int = 0
    clock: Clock = field(default_factory=Clock)
    """Of the families of a user."""

    def enter(self, clock: Clock) -> None:
        """A request of it begins to wait."""
        if not self.num_waiting:
            self.level = max(self.level, clock.now)
        self.num_waiting += 1

    def count_live(self, clock: Clock, change: int) -> None:
        before, self.num_live = self.num_live, self.num_live + change
        clock.num_live += bool(self.num_live) - bool(before)


class Fairness:
    """Keeps the levels of all users and families, and puts requests in order by them."""

    def __init__(self) -> None:
        self.clock = Clock()
        """Of the users."""

    def come(self, owner: Owner) -> None:
        """A request is new."""
        for share, clock in self._shares(owner):
            share.enter(clock)
            share.count_live(clock, 1)

    def admit(self, owner: Owner) -> None:
        for share, _ in self._shares(owner):
            share.num_waiting -= 1

    def requeue(self, owner: Owner) -> None:
        for share, clock in self._shares(owner):
            share.enter(clock)

    def leave(self, owner: Owner, *, was_waiting: bool) -> None:
        """A request has ended."""
        for share, clock in self._shares(owner):
            share.num_waiting -= was_waiting
            share.count_live(clock, -1)

    def serve(self, owner: Owner, num_tokens: int) -> None:
        """Tokens were computed for a live request."""
        self.serve_each([(owner, num_tokens)])

    def serve_each(self, served: Iterable[tuple[Owner, int]]) -> None:
        """So many tokens were computed for live requests of these."""
        # For every row of every batch: written out for both shares.
        clock = self.clock
        num_live = clock.num_live or 1
        for owner, num_tokens in served:
            clock.turn += 1
            level, user, root = num_tokens * SCALE, owner.user, owner.root
            user.level += level
            root.level += level
            user.last_turn = root.last_turn = clock.turn
            clock.now += level // num_live
            user.clock.now += level // (user.clock.num_live or 1)

    def _shares(self, owner: Owner) -> tuple[tuple[Share, Clock], tuple[Share, Clock]]:
        return (owner.user, self.clock), (owner.root, owner.user.clock)


def over_share(request: Request) -> tuple[int, int, int, int]:
    """The higher, the sooner a request gives way: its user and its family had more, its priority
    is lower, it came later."""
    owner = request.context.owner
    return owner.user.level, owner.root.level, -request.context.priority, request.id


class _Queue:
    """What is left of one share in one ordering; `level` runs ahead by what was yielded."""

    __slots__ = ("_serial", "_share", "level")

    def __init__(self, share: Share, serial: int) -> None:
        self.level = share.level
        self._share = share
        self._serial = serial

    def __lt__(self, other: _Queue) -> bool:
        return self.key < other.key

    @property
    def key(self) -> tuple[int, ...]:
        return self.level, self._share.last_turn, self._serial

    def pop(self, cost: Callable[[Request], int]) -> tuple[Request, int]:
        raise NotImplementedError

    def __bool__(self) -> bool:
        raise NotImplementedError


class _Family(_Queue):
    __slots__ = ("_quantum", "_requests")

    def __init__(self, share: Share, serial: int, quantum: int) -> None:
        super().__init__(share, serial)
        self._quantum = quantum
        self._requests: list[tuple[int, int, Request]] = []

    @property
    def key(self) -> tuple[int, ...]:
        if not self._quantum:
            return super().key
        *_, first = self._requests[0]
        starts_anew = not first.context.pages
        return self.level // (self._quantum * SCALE), starts_anew, *super().key

    def add(self, request: Request) -> None:
        self._requests.append((-request.context.priority, request.id, request))

    def seal(self) -> None:
        heapify(self._requests)

    def pop(self, cost: Callable[[Request], int]) -> tuple[Request, int]:
        *_, request = heappop(self._requests)
        tokens = cost(request)
        self.level += tokens * SCALE
        return request, tokens

    def __bool__(self) -> bool:
        return bool(self._requests)


class _Level(_Queue):
    """Queues by level: families of a user, or users."""

    __slots__ = ("_queues",)

    def __init__(self, share: Share, serial: int, queues: Iterable[_Queue]) -> None:
        super().__init__(share, serial)
        self._queues = list(queues)
        heapify(self._queues)

    def pop(self, cost: Callable[[Request], int]) -> tuple[Request, int]:
        first = self._queues[0]
        request, tokens = first.pop(cost)
        if first:
            heapreplace(self._queues, first)
        else:
            heappop(self._queues)
        self.level += tokens * SCALE
        return request, tokens

    def __bool__(self) -> bool:
        return bool(self._queues)


def fair_order(
    requests: Iterable[Request], cost: Callable[[Request], int], quantum: int = 0
) -> Iterator[Request]:
    """The lowest user first, of that user the lowest family, of that family the highest priority
    and then first come; each one yielded counts as served with its cost for those after it.

    With a `quantum`, families whose levels are within the same such part of tokens count as equal,
    and those first that go on with pages which they have.
    """
    users: dict[Share, dict[Share, _Family]] = {}
    for request in requests:
        owner = request.context.owner
        families = users.setdefault(owner.user, {})
        family = families.get(owner.root)
        if family is None:
            family = families[owner.root] = _Family(owner.root, len(families), quantum)
        family.add(request)
    for families in users.values():
        for family in families.values():
            family.seal()
    everybody = _Level(
        Share(), 0, (_Level(user, n, users[user].values()) for n, user in enumerate(users))
    )
    while everybody:
        yield everybody.pop(cost)[0]
