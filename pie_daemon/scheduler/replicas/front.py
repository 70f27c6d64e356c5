"""Several schedulers, each with its own worker, pool and state, that look like one.

A context is nowhere until its first request: what is appended before only fills its journal. Then
it goes where the longest beginning of it is known, unless that replica is too busy, and stays.
Forks are born beside their parents, and leave them with their first request when the imbalance is
large, by their journals. All replicas share one lock, which is never held while anything computes,
and with it what users and families had so far, token budgets and page quotas.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pie_backend.base import Backend
from pie_backend.batch import BackendInfo
from pie_daemon.errors import PieError
from pie_daemon.scheduler.adapters import Adapters
from pie_daemon.scheduler.common import Common
from pie_daemon.scheduler.company import Awake, nobody
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.owners import TokenBudget
from pie_daemon.scheduler.page_jobs import PageJob
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import Answer, PassSpec
from pie_daemon.scheduler.replicas.adapters import ReplicaAdapters
from pie_daemon.scheduler.replicas.placement import PrefixAware, Routed
from pie_daemon.scheduler.replicas.replica import Nowhere, Replica
from pie_daemon.scheduler.replicas.stats import together
from pie_daemon.scheduler.request import Chunk, Finish, Usage
from pie_daemon.scheduler.service import OwnerUsage, Scheduler
from pie_daemon.scheduler.stats import SchedulerStats
from pie_daemon.scheduler.telling import Notify, Wake
from pie_daemon.scheduler.worker import Worker

_UNPLACED = -1


@dataclass(slots=True, eq=False)
class Place:
    """Where a context is. Its program calls about it from one thread."""

    owner: str
    replica: int
    """_UNPLACED: in the lobby."""
    local: int
    """Its number there."""
    priority: int = 0
    may_leave: bool = False
    """A fork that had no request of its own."""


class Replicas:
    """Has the interface of `Scheduler`. Thread-safe; every method raises PieError."""

    def __init__(
        self,
        workers: Sequence[Backend | Worker],
        token_bytes: Callable[[int], bytes],
        config: SchedulerConfig | None = None,
        *,
        on_tokens: Callable[[str, int], None] | None = None,
        common: Common | None = None,
    ) -> None:
        """All of one model. They stay the caller's, who closes them after `stop`."""
        config = config or SchedulerConfig()
        common = common or Common()
        self._replicas = [
            Replica(worker, token_bytes, config, on_tokens=on_tokens, common=common)
            for worker in workers
        ]
        self._lobby = Replica(cast(Backend, Nowhere(self.info)), token_bytes, config)
        self._policy = PrefixAware(len(workers), config.replica_slack)
        self._routed = Routed()
        self._lock = threading.Lock()
        self._places: dict[int, Place] = {}
        self._owned: defaultdict[str, set[int]] = defaultdict(set)
        self._last_context = 0
        self.adapters = ReplicaAdapters(self._alive_adapters)

    @property
    def info(self) -> BackendInfo:
        """Of the replica with the fewest pages: what fits there fits everywhere."""
        return min((one.info for one in self._replicas), key=lambda info: info.num_pages)

    # Owners

    def add_owner(
        self,
        owner: str,
        *,
        user: str = "",
        root: str | None = None,
        budget: TokenBudget | None = None,
        max_kv_pages: int | Mapping[str, int] | None = None,
    ) -> None:
        self._lobby.add_owner(owner, user=user, root=root)
        for one in self._replicas:
            one.add_owner(owner, user=user, root=root, budget=budget, max_kv_pages=max_kv_pages)

    def drop_owner(self, owner: str) -> None:
        for one in (self._lobby, *self._replicas):
            one.drop_owner(owner)
        with self._lock:
            for number in self._owned.pop(owner, ()):
                del self._places[number]

    def owner_usage(self, owner: str) -> OwnerUsage:
        usages = [one.owner_usage(owner) for one in self._replicas]
        return OwnerUsage(
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            cached_tokens=sum(usage.cached_tokens for usage in usages),
            generated_tokens=sum(usage.generated_tokens for usage in usages),
            kv_pages=sum(usage.kv_pages for usage in usages),
        )

    # Contexts

    def create_context(self, owner: str) -> int:
        return self._register(Place(owner, _UNPLACED, self._lobby.create_context(owner)))

    def append(self, context: int, tokens: Sequence[int]) -> None:
        place = self._get(context)
        self._home(place).append(place.local, tokens)

    def fork(self, context: int) -> int:
        place = self._get(context)
        local = self._home(place).fork(place.local)
        return self._register(replace(place, local=local, may_leave=True))

    def snapshot(self, context: int) -> Journal:
        place = self._get(context)
        return self._home(place).snapshot(place.local)

    def open_journal(self, owner: str, journal: Journal) -> int:
        """What adapters have computed goes to a replica at once, which has to have them."""
        if all(adapter is None for _, adapter in journal.adapters):
            return self._register(Place(owner, _UNPLACED, self._lobby.open_journal(owner, journal)))
        replica = self._policy.choose([0] * len(self._replicas), self._loads())
        local = self._replicas[replica].open_journal(owner, journal)
        return self._register(Place(owner, replica, local))

    def store_pages(self, context: int, path: str, notify: Wake) -> PageJob:
        place = self._placed(context)
        return self._home(place).store_pages(place.local, path, notify)

    def load_pages(self, context: int, path: str, notify: Wake) -> PageJob:
        place = self._placed(context)
        return self._home(place).load_pages(place.local, path, notify)

    def set_visible(self, context: int, start: int, end: int, visible: bool) -> None:
        place = self._get(context)
        self._home(place).set_visible(place.local, start, end, visible)

    def set_priority(self, context: int, priority: int) -> None:
        place = self._get(context)
        self._home(place).set_priority(place.local, priority)
        place.priority = priority

    def truncate(self, context: int, length: int) -> None:
        place = self._get(context)
        self._home(place).truncate(place.local, length)

    def length(self, context: int) -> int:
        place = self._get(context)
        return self._home(place).length(place.local)

    def tokens(self, context: int, start: int, end: int) -> list[int]:
        place = self._get(context)
        return self._home(place).tokens(place.local, start, end)

    def drop_context(self, context: int) -> None:
        place = self._get(context)
        self._home(place).drop_context(place.local)
        with self._lock:
            if self._places.pop(context, None) is not None:
                self._owned[place.owner].discard(context)

    def replica_of(self, context: int) -> int | None:
        """Which one has it; None: none yet."""
        place = self._get(context)
        return None if place.replica == _UNPLACED else place.replica

    # Requests

    def generate(self, context: int, params: GenerateParams, notify: Notify) -> int:
        place = self._placed(context)
        return self._number(place, self._home(place).generate(place.local, params, notify))

    def flush(self, context: int, notify: Notify) -> int | None:
        place = self._placed(context)
        request = self._home(place).flush(place.local, notify)
        return None if request is None else self._number(place, request)

    def submit(self, passes: Sequence[PassSpec], notify: Notify) -> list[int]:
        """Passes on one replica are admitted together; contexts that are nowhere yet follow the
        first one of the list, so that what begins together stays together. When a replica refuses
        its part, the answers of the others' parts are given up, and what these passes have
        appended stays, as after dropping any pass."""
        leader = self._placed(passes[0].context).replica
        places = [self._placed(one.context, leader) for one in passes]
        requests: dict[int, int] = {}
        try:
            for replica in dict.fromkeys(place.replica for place in places):
                indices = [i for i, place in enumerate(places) if place.replica == replica]
                specs = [replace(passes[i], context=places[i].local) for i in indices]
                submitted = self._replicas[replica].submit(specs, notify)
                numbers = [self._number(places[indices[0]], request) for request in submitted]
                requests.update(zip(indices, numbers, strict=True))
        except PieError:
            for request in reversed(requests.values()):
                self.drop_request(request)
            raise
        return [requests[i] for i in range(len(passes))]

    def take_answers(self, request: int) -> list[Answer]:
        replica, local = self._find(request)
        return replica.take_answers(local)

    def new_seed(self) -> int:
        return self._lobby.new_seed()

    def ready(self, request: int) -> bool:
        replica, local = self._find(request)
        return replica.ready(local)

    def take(self, request: int) -> Chunk | None:
        replica, local = self._find(request)
        return replica.take(local)

    def finish(self, request: int) -> Finish | None:
        replica, local = self._find(request)
        return replica.finish(local)

    def usage(self, request: int) -> Usage:
        replica, local = self._find(request)
        return replica.usage(local)

    def cancel(self, request: int) -> None:
        replica, local = self._find(request)
        replica.cancel(local)

    def drop_request(self, request: int) -> None:
        replica, local = self._find(request)
        replica.drop_request(local)

    # Service

    def start(self) -> None:
        for one in self._replicas:
            one.start()

    def stop(self) -> None:
        """All at once: each waits for its batch in flight."""
        stopping = [threading.Thread(target=one.stop) for one in (self._lobby, *self._replicas)]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def check(self) -> None:
        """Raises: IntegrityError."""
        for one in (self._lobby, *self._replicas):
            one.check()

    def stats(self) -> SchedulerStats:
        return together([one.stats() for one in self._replicas], self._lobby.stats().contexts)

    # Places

    def _register(self, place: Place) -> int:
        with self._lock:
            self._last_context += 1
            self._places[self._last_context] = place
            self._owned[place.owner].add(self._last_context)
            return self._last_context

    def _get(self, context: int) -> Place:
        place = self._places.get(context)
        if place is None:
            raise PieError("not-found", f"there is no context {context}")
        return place

    def _home(self, place: Place) -> Replica:
        return self._lobby if place.replica == _UNPLACED else self._replicas[place.replica]

    def _placed(self, context: int, leader: int | None = None) -> Place:
        """On a replica from now on: that of the leader, if it is nowhere yet."""
        place = self._get(context)
        if place.may_leave:
            self._reconsider(place)
        if place.replica == _UNPLACED:
            keys = self._lobby.keys_of(place.local)
            with self._lock:
                target = self._choose(keys) if leader is None else leader
                self._routed.add(keys, target)
            self._move(place, target)
        return place

    def _choose(self, keys: list[bytes]) -> int:
        known = [
            max(one.num_known(keys), self._routed.num_known(keys, number))
            for number, one in enumerate(self._replicas)
        ]
        return self._policy.choose(known, self._loads())

    def _reconsider(self, place: Place) -> None:
        """A fork before its first request."""
        place.may_leave = False
        if place.replica == _UNPLACED or not self._policy.is_far_off(place.replica, self._loads()):
            return
        journal = self._home(place).snapshot(place.local)
        if all(adapter is None for _, adapter in journal.adapters):
            self._move(place, _UNPLACED)

    def _move(self, place: Place, target: int) -> None:
        """By its journal: what it had computed is found there, or computed again."""
        old, new = self._home(place), self._lobby if target < 0 else self._replicas[target]
        local = new.open_journal(place.owner, old.snapshot(place.local))
        if place.priority:
            new.set_priority(local, place.priority)
        old.drop_context(place.local)
        place.replica, place.local = target, local

    def _loads(self) -> list[int | None]:
        """When no worker serves, those count that are being started again."""
        loads = [one.load() for one in self._replicas]
        if any(load is not None for load in loads):
            return loads
        return [one.load(or_later=True) for one in self._replicas]

    def _alive_adapters(self) -> list[Adapters]:
        """Who is being started again loads what it had, and what is opened meanwhile."""
        alive = [one for one in self._replicas if one.load(or_later=True) is not None]
        return [one.adapters for one in alive or self._replicas]

    # Numbers of requests: that of their replica, and which replica it is.

    def _number(self, place: Place, request: int) -> int:
        return request * len(self._replicas) + place.replica

    def _find(self, request: int) -> tuple[Replica, int]:
        local, replica = divmod(request, len(self._replicas))
        return self._replicas[replica], local


def make_scheduler(
    workers: Sequence[Worker],
    token_bytes: Callable[[int], bytes],
    config: SchedulerConfig,
    awake: Awake = nobody,
) -> Scheduler | Replicas:
    """What serves one model with so many workers. `awake`: programs that may be about to ask."""
    common = Common(awake=awake)
    if len(workers) == 1:
        return Scheduler(workers[0], token_bytes, config, common=common)
    return Replicas(workers, token_bytes, config, common=common)
