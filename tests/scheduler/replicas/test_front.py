"""Several workers behind one front, with real threads on dummy backends."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig, Batch, BatchResult, Sample, Sampling
from pie_backend.dummy import DummyBackend, expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import PassSpec
from pie_daemon.scheduler.replicas.front import Replicas
from pie_daemon.scheduler.service import Scheduler
from support.adapter_files import write_adapter_files
from support.purse import Purse
from support.stepping import letters
from support.waiting import until

HANG_S = 60.0
Open = Callable[..., Replicas]


class Gated(DummyBackend):
    """Computes when its gate is open, and dies when it is told."""

    def __init__(self, num_pages: int = 256) -> None:
        config = BackendConfig(name="m", kind="dummy", path="", kv_pages=num_pages, page_size=4)
        super().__init__(config)
        self.gate = threading.Event()
        self.gate.set()
        self.is_dead = False
        self.num_rows = 0

    def execute(self, batch: Batch) -> BatchResult:
        assert self.gate.wait(HANG_S)
        if self.is_dead:
            raise BackendError("killed by a test")
        self.num_rows += len(batch.rows)
        return super().execute(batch)


@pytest.fixture
def backends() -> list[Gated]:
    return [Gated(), Gated()]


@pytest.fixture
def open_front(backends: list[Gated]) -> Iterator[Open]:
    """Closes it and proves the pages of every replica."""
    opened: list[Replicas] = []

    def build(**config: int) -> Replicas:
        opened.append(Replicas(backends, letters, SchedulerConfig(**config)))
        opened[-1].start()
        return opened[-1]

    yield build
    for backend in backends:
        backend.gate.set()
    for front in opened:
        front.check()
        front.stop()


class Program:
    """One owner, who waits on a queue as an instance's mailbox does."""

    def __init__(self, front: Replicas | Scheduler, owner: str, **rights: object) -> None:
        self.front = front
        self.owner = owner
        self.woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        front.add_owner(owner, **rights)  # type: ignore[arg-type]

    def notify(self) -> None:
        self.woken.put(None)

    def context(self, prompt: Sequence[int]) -> int:
        context = self.front.create_context(self.owner)
        self.front.append(context, prompt)
        return context

    def start(self, context: int, num_tokens: int = 4, adapter: str | None = None) -> int:
        params = GenerateParams(max_tokens=num_tokens, adapter=adapter)
        return self.front.generate(context, params, self.notify)

    def drain(self, request: int) -> list[int]:
        tokens: list[int] = []
        while True:
            while not self.front.ready(request):
                self.woken.get(timeout=HANG_S)
            chunk = self.front.take(request)
            if chunk is None:
                return tokens
            tokens += chunk.tokens

    def say(self, prompt: Sequence[int], num_tokens: int = 4) -> list[int]:
        return self.drain(self.start(self.context(prompt), num_tokens))


def prompt_of(family: int, number: int = 0) -> list[int]:
    """Forty tokens of the family, then two of its own."""
    return [family + 1] * 40 + [100 + number, 7]


def test_a_beginning_is_computed_once_on_all_replicas_together(open_front: Open) -> None:
    """Twenty-four programs of four families find as much as on one replica alone."""
    front = open_front()
    alone = Scheduler(Gated(), letters)
    alone.start()
    for scheduler in (front, alone):
        for number in range(24):
            program = Program(scheduler, f"p{number}", user="ann")
            prompt = prompt_of(number % 4, number)
            assert expected_tokens(prompt, 4) == program.say(prompt)
            scheduler.drop_owner(program.owner)
    stats = front.stats()
    assert 20 * 40 == stats.found_tokens == alone.stats().found_tokens
    assert alone.stats().prefix_hit_rate == stats.prefix_hit_rate
    assert all(one.found_tokens > 0 for one in stats.replicas)
    alone.stop()


def test_what_is_not_computed_yet_counts_as_known(open_front: Open, backends: list[Gated]) -> None:
    """Programs that come at once with one beginning go to one replica, up to the slack; then
    another one gets some, and takes part from then on."""
    front = open_front(replica_slack=3)
    for backend in backends:
        backend.gate.clear()
    program = Program(front, "p")
    contexts = [program.context(prompt_of(0, number)) for number in range(12)]
    requests = [program.start(context) for context in contexts]
    places = [front.replica_of(context) for context in contexts]
    assert [places[0]] * 4 == places[:4]
    assert {0, 1} == set(places)
    assert 4 <= places.count(0) <= 8
    for backend in backends:
        backend.gate.set()
    for number, request in enumerate(requests):
        assert expected_tokens(prompt_of(0, number), 4) == program.drain(request)


def test_strangers_are_spread_evenly(open_front: Open, backends: list[Gated]) -> None:
    """Prompts that nobody knows go to the least busy replica."""
    front = open_front()
    for backend in backends:
        backend.gate.clear()
    program = Program(front, "p")
    contexts = [program.context(prompt_of(number)) for number in range(10)]
    requests = [program.start(context) for context in contexts]
    assert [5, 5] == [one.running_requests + one.waiting_requests for one in front.stats().replicas]
    for backend in backends:
        backend.gate.set()
    for number, request in enumerate(requests):
        assert expected_tokens(prompt_of(number), 4) == program.drain(request)
    assert all(backend.num_rows for backend in backends)


def test_a_context_is_nowhere_until_its_first_request(open_front: Open) -> None:
    """What is done to it before only changes its journal; afterwards it stays where it is."""
    front = open_front()
    program = Program(front, "p")
    context = program.context([1, 2, 3, 4, 5])
    front.truncate(context, 3)
    front.set_priority(context, 2)
    child = front.fork(context)
    front.append(child, [9])
    assert front.replica_of(context) is None
    assert [3, 4] == [front.length(context), front.length(child)]
    assert [1, 2, 3, 9] == front.tokens(child, 0, 4)
    assert expected_tokens([1, 2, 3, 9], 4) == program.drain(program.start(child))
    place = front.replica_of(child)
    assert place is not None
    assert 8 == front.length(child)
    again = expected_tokens([*front.tokens(child, 0, 8), 5], 4)
    front.append(child, [5])
    assert again == program.drain(program.start(child))
    assert place == front.replica_of(child)
    front.drop_context(context)
    with pytest.raises(PieError, match="no context"):
        front.length(context)
    with pytest.raises(PieError, match="vocabulary"):
        front.append(child, [10**6])


def test_forks_stay_unless_the_imbalance_is_large(open_front: Open, backends: list[Gated]) -> None:
    """Then they leave with their first request, and say the same."""
    front = open_front(replica_slack=1)
    program = Program(front, "p")
    parent = program.context(prompt_of(0))
    program.drain(program.start(parent))
    home = front.replica_of(parent)
    forks = [front.fork(parent) for _ in range(7)]
    assert [home] * 7 == [front.replica_of(fork) for fork in forks]
    for backend in backends:
        backend.gate.clear()
    requests = [program.start(fork) for fork in forks]
    places = [front.replica_of(fork) for fork in forks]
    assert [home] * 5 == places[:5]
    assert home != places[5]
    assert home == places[6]
    for backend in backends:
        backend.gate.set()
    expected = expected_tokens(prompt_of(0), 8)[4:]
    assert [expected] * 7 == [program.drain(request) for request in requests]


def test_saved_contexts_open_anywhere(open_front: Open) -> None:
    """A journal of one replica goes on on either."""
    front = open_front()
    program = Program(front, "p")
    context = program.context(prompt_of(0))
    program.drain(program.start(context))
    journal = front.snapshot(context)
    expected = expected_tokens(prompt_of(0), 8)[4:]
    for _ in range(3):
        opened = front.open_journal("p", journal)
        assert expected == program.drain(program.start(opened))


def test_pages_go_to_files_and_back(open_front: Open, tmp_path: Path) -> None:
    """Of a context wherever it is, into whichever replica opens it."""
    front = open_front()
    program = Program(front, "p", user="ann")
    context = program.context(prompt_of(0))
    program.drain(program.start(context))
    stored = front.store_pages(context, str(tmp_path / "pages"), program.notify)
    until(lambda: stored.done)
    opened = front.open_journal("p", front.snapshot(context))
    loaded = front.load_pages(opened, str(tmp_path / "pages"), program.notify)
    until(lambda: loaded.done)
    assert (None, None) == (stored.failure, loaded.failure)
    assert stored.num_moved > 5
    assert expected_tokens(prompt_of(0), 8)[4:] == program.drain(program.start(opened))


def test_passes_on_several_replicas(open_front: Open, backends: list[Gated]) -> None:
    """Answers come in the order of the list; what is nowhere yet follows the first of it."""
    front = open_front(replica_slack=0)
    program = Program(front, "p")
    first, second = program.context(prompt_of(0)), program.context(prompt_of(1))
    program.drain(program.start(first))
    program.drain(program.start(second))
    assert {0, 1} == {front.replica_of(first), front.replica_of(second)}
    third = program.context([5, 6])
    asked = [
        PassSpec(context, [9], questions=[Sample(0, Sampling())])
        for context in (second, third, first)
    ]
    requests = front.submit(asked, program.notify)
    assert front.replica_of(second) == front.replica_of(third)
    for request in requests:
        until(lambda request=request: front.ready(request))
    expected = [
        expected_tokens([*front.tokens(one.context, 0, front.length(one.context))], 1)
        for one in asked
    ]
    assert expected == [front.take_answers(request) for request in requests]


def test_a_part_that_is_refused_takes_the_others_back(open_front: Open) -> None:
    """All answers or none; every context can go on."""
    front = open_front(replica_slack=0)
    program = Program(front, "p")
    first, second = program.context(prompt_of(0)), program.context(prompt_of(1))
    program.drain(program.start(first))
    program.drain(program.start(second))
    good = PassSpec(first, [9], questions=[Sample(0, Sampling())])
    with pytest.raises(PieError, match="vocabulary"):
        front.submit([good, PassSpec(second, [10**6])], program.notify)
    assert 2 == len(front.submit([good, PassSpec(second, [3])], program.notify))


def test_a_death_does_not_disturb_the_other(open_front: Open, backends: list[Gated]) -> None:
    """Contexts of the dead one say why; the others, and all new ones, go on."""
    front = open_front()
    program = Program(front, "p")
    contexts = [program.context(prompt_of(number)) for number in range(2)]
    for context in contexts:
        program.drain(program.start(context))
    [hit] = [context for context in contexts if front.replica_of(context) == 0]
    [well] = [context for context in contexts if front.replica_of(context) == 1]
    backends[0].is_dead = True
    with pytest.raises(PieError, match="killed by a test"):
        program.drain(program.start(hit))
    program.drain(program.start(well))
    for number in range(6):
        prompt = prompt_of(number, 50)
        assert expected_tokens(prompt, 4) == program.say(prompt)
    stats = front.stats()
    assert stats.failure is None
    assert "killed by a test" in (stats.replicas[0].failure or "")
    backends[1].is_dead = True
    with pytest.raises(PieError, match="killed by a test"):
        program.say([1, 2, 3])
    until(lambda: front.stats().failure is not None)


def test_a_fork_of_a_dead_replica_lives_on_elsewhere(
    open_front: Open, backends: list[Gated]
) -> None:
    """Its journal is all it needs."""
    front = open_front()
    program = Program(front, "p")
    context = program.context(prompt_of(0))
    program.drain(program.start(context))
    home = front.replica_of(context)
    assert home is not None
    backends[home].is_dead = True
    with pytest.raises(PieError, match="killed"):
        program.drain(program.start(context))
    fork = front.fork(context)
    assert expected_tokens(prompt_of(0), 8)[4:] == program.drain(program.start(fork))
    assert home != front.replica_of(fork)


def test_budgets_and_quotas_hold_across_replicas(open_front: Open, backends: list[Gated]) -> None:
    """Tokens and pages of all replicas are counted together, and so is what an owner used."""
    front = open_front()
    program = Program(front, "p", budget=Purse(10))
    assert [4, 4, 2] == [len(program.say(prompt_of(number))) for number in range(3)]
    assert 10 == front.owner_usage("p").generated_tokens
    front.drop_owner("p")

    program = Program(front, "q", max_kv_pages=25)
    contexts = [program.context(prompt_of(number)) for number in range(3)]
    for context in contexts[:2]:
        program.drain(program.start(context))
    assert {0, 1} == {front.replica_of(context) for context in contexts[:2]}
    with pytest.raises(PieError, match="q may hold 25 pages"):
        program.start(contexts[2])


def test_adapters_are_loaded_everywhere(
    open_front: Open, backends: list[Gated], tmp_path: Path
) -> None:
    """An open one computes on either replica; content that cannot be used is refused once."""
    write_adapter_files(tmp_path / "one")
    front = open_front()
    program = Program(front, "p")
    opening = front.adapters.open(tmp_path / "one", program.notify)
    until(lambda: opening.done)
    assert opening.error is None
    places = set()
    for number in range(2):
        context = program.context(prompt_of(number))
        found = program.drain(program.start(context, adapter=opening.digest))
        expected = expected_tokens(prompt_of(number), 4, adapters=[opening.digest])
        assert expected == found
        places.add(front.replica_of(context))
    assert {0, 1} == places
    reopened = front.open_journal("p", front.snapshot(context))
    program.drain(program.start(reopened, adapter=opening.digest))
    assert 1 == front.stats().adapters
    front.adapters.close(opening)
    write_adapter_files(tmp_path / "bad", use_dora=True)
    bad = front.adapters.open(tmp_path / "bad", program.notify)
    until(lambda: bad.done)
    assert "use_dora" in str(bad.error)
    front.adapters.close(bad)
    with pytest.raises(PieError, match="cannot be read"):
        front.adapters.open(tmp_path / "none", program.notify)
