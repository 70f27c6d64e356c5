"""The scheduler's thread and lock, with real threads on the dummy backend."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig, Batch, BatchResult, Sample, Sampling
from pie_backend.bursts import Bursts
from pie_backend.dummy import DummyBackend, expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler import service
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.gathering import Gathering
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import PassSpec
from pie_daemon.scheduler.request import CANCELLED, FLUSHED, LENGTH, Finish
from pie_daemon.scheduler.service import Scheduler
from support.stepping import letters

PROMPT = [11, 12, 13, 14, 15, 16]
HANG_S = 60.0


class Gated(DummyBackend):
    """Computes a batch only when the test lets it, or dies the way it is told."""

    def __init__(self) -> None:
        super().__init__(backend_config())
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.death: Exception | None = None

    def execute(self, batch: Batch) -> BatchResult:
        self.entered.release()
        assert self.gate.acquire(timeout=HANG_S)
        if self.death is not None:
            raise self.death
        return super().execute(batch)


class Program:
    """One owner's view: waits on a queue as an instance's mailbox does."""

    def __init__(self, scheduler: Scheduler, owner: str) -> None:
        self.scheduler = scheduler
        self.owner = owner
        self.woken: queue.SimpleQueue[int] = queue.SimpleQueue()

    def notify(self) -> None:
        self.woken.put(threading.get_ident())

    def generate(self, prompt: list[int], params: GenerateParams) -> int:
        context = self.scheduler.create_context(self.owner)
        self.scheduler.append(context, prompt)
        return self.scheduler.generate(context, params, self.notify)

    def wait(self, request: int) -> None:
        while not self.scheduler.ready(request):
            self.woken.get(timeout=HANG_S)

    def drain(self, request: int) -> tuple[list[int], Finish | None]:
        tokens: list[int] = []
        while True:
            self.wait(request)
            chunk = self.scheduler.take(request)
            if chunk is None:
                return tokens, self.scheduler.finish(request)
            tokens += chunk.tokens


def backend_config(num_pages: int = 256) -> BackendConfig:
    """Small pages on the default vocabulary."""
    return BackendConfig(name="dummy", kind="dummy", path="", page_size=4, kv_pages=num_pages)


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that another thread brings about."""
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    """Running, and proved clean after the test."""
    scheduler = Scheduler(DummyBackend(backend_config()), letters)
    scheduler.start()
    yield scheduler
    scheduler.stop()
    scheduler.check()


@pytest.fixture
def gated() -> Gated:
    """A backend that waits for the test."""
    return Gated()


@pytest.fixture
def stopped_at_gate(gated: Gated) -> Iterator[Scheduler]:
    """A scheduler on the gated backend; the gate opens at the end."""
    scheduler = Scheduler(gated, letters)
    scheduler.start()
    yield scheduler
    gated.gate.release(1000)
    scheduler.stop()
    scheduler.check()


def test_a_generation_through_the_thread(scheduler: Scheduler) -> None:
    """Tokens are those of the reference, and every call-back comes from the scheduler's thread."""
    program = Program(scheduler, "one")
    request = program.generate(PROMPT, GenerateParams(max_tokens=30))

    assert (expected_tokens(PROMPT, 30), LENGTH) == program.drain(request)
    while not program.woken.empty():
        assert program.woken.get() != threading.get_ident()


def test_flush(scheduler: Scheduler) -> None:
    """A flush ends when everything is computed; a second one has nothing to do."""
    program = Program(scheduler, "one")
    context = scheduler.create_context("one")
    scheduler.append(context, PROMPT)
    request = scheduler.flush(context, program.notify)
    assert request is not None

    assert ([], FLUSHED) == program.drain(request)
    assert scheduler.flush(context, program.notify) is None


def test_64_programs_with_16_cancelled_leave_the_other_48_unchanged() -> None:
    """Programs on 64 threads in a pool for some of them: survivors get the tokens from scratch."""
    scheduler = Scheduler(
        DummyBackend(backend_config(160)), letters, SchedulerConfig(max_batch_tokens=64)
    )
    scheduler.start()

    def run(number: int) -> tuple[list[int], Finish | None]:
        program = Program(scheduler, f"owner-{number}")
        request = program.generate([number] * (1 + number % 9), GenerateParams(max_tokens=20))
        try:
            if number % 4 == 0:
                program.wait(request)  # not drained before it is taken, so never too late to cancel
                scheduler.cancel(request)
            return program.drain(request)
        finally:
            scheduler.drop_owner(program.owner)

    with ThreadPoolExecutor(64) as threads:
        outcomes = list(threads.map(run, range(64)))

    assert [CANCELLED] * 16 == [finish for _, finish in outcomes[::4]]
    assert [(expected_tokens([n] * (1 + n % 9), 20), LENGTH) for n in range(64) if n % 4] == [
        outcome for n, outcome in enumerate(outcomes) if n % 4
    ]
    assert scheduler.stats().free_pages == 160
    scheduler.check()
    scheduler.stop()


def test_a_newcomer_ends_a_burst(gated: Gated) -> None:
    """Its prompt is in the next pass, and everybody has the same tokens as alone."""
    scheduler = Scheduler(Bursts(gated), letters)
    scheduler.start()
    first, second = Program(scheduler, "one"), Program(scheduler, "two")
    long = first.generate(PROMPT, GenerateParams(max_tokens=40, chunk_tokens=0))
    gated.gate.release(3)
    for _ in range(4):
        assert gated.entered.acquire(timeout=HANG_S)
    newcomer = second.generate([7], GenerateParams(max_tokens=1))  # during the burst's third pass
    gated.gate.release(2)
    assert (expected_tokens([7], 1), LENGTH) == second.drain(newcomer)
    gated.gate.release(1000)
    assert (expected_tokens(PROMPT, 40), LENGTH) == first.drain(long)
    scheduler.stop()
    scheduler.check()


def test_calls_never_wait_for_the_backend(stopped_at_gate: Scheduler, gated: Gated) -> None:
    """While a batch is computed, every method returns, and what they did counts afterwards."""
    scheduler = stopped_at_gate
    program = Program(scheduler, "one")
    request = program.generate(PROMPT, GenerateParams(max_tokens=3))
    assert gated.entered.acquire(timeout=HANG_S)

    other = scheduler.create_context("two")
    scheduler.append(other, [1, 2, 3])
    fork = scheduler.fork(other)
    scheduler.truncate(fork, 1)
    second = scheduler.generate(other, GenerateParams(max_tokens=2), program.notify)
    stats = scheduler.stats()
    scheduler.cancel(request)
    scheduler.drop_owner("one")
    gated.gate.release(100)

    assert (1, 1, 3) == (stats.running_requests, stats.waiting_requests, stats.contexts)
    assert (expected_tokens([1, 2, 3], 2), LENGTH) == program.drain(second)
    assert [[1]] == [scheduler.tokens(fork, 0, scheduler.length(fork))]


@pytest.mark.parametrize("death", [BackendError("out of memory"), ValueError("a defect")])
def test_a_dead_backend_fails_instead_of_hanging(
    stopped_at_gate: Scheduler, gated: Gated, death: Exception
) -> None:
    """Running and waiting programs are told `internal` with the reason, later ones at once."""
    scheduler = stopped_at_gate
    programs = [Program(scheduler, str(n)) for n in range(3)]
    requests = [program.generate(PROMPT, GenerateParams(max_tokens=5)) for program in programs]
    gated.death = death
    gated.gate.release()

    for program, request in zip(programs, requests, strict=True):
        with pytest.raises(PieError, match=str(death)) as caught:
            program.drain(request)
        assert caught.value.code == "internal"
    with pytest.raises(PieError, match=str(death)):
        programs[0].generate(PROMPT, GenerateParams())
    assert str(death) in (scheduler.stats().failure or "")


def test_stop_fails_what_is_unfinished_with_closed(
    stopped_at_gate: Scheduler, gated: Gated
) -> None:
    """It ends after the batch in flight; a waiting program is woken, and nothing starts again."""
    scheduler = stopped_at_gate
    program = Program(scheduler, "one")
    request = program.generate(PROMPT, GenerateParams(max_tokens=500))
    assert gated.entered.acquire(timeout=HANG_S)
    gated.gate.release(1000)
    scheduler.stop()

    for call in (
        lambda: program.drain(request),
        lambda: program.generate(PROMPT, GenerateParams()),
    ):
        with pytest.raises(PieError) as caught:
            call()
        assert caught.value.code == "closed"


def test_a_scheduler_that_never_started_stops() -> None:
    """A failed start-up can still clean up."""
    Scheduler(DummyBackend(backend_config()), letters).stop()


def test_a_fresh_seed_comes_from_the_service() -> None:
    """Without a seed each generation gets its own; a given one is kept."""
    seeds = iter([100, 200])
    scheduler = Scheduler(DummyBackend(backend_config()), letters, fresh_seed=lambda: next(seeds))
    scheduler.start()
    program = Program(scheduler, "one")

    def tokens(*, fresh: bool) -> list[int]:
        sampling = Sampling(temperature=1.0, seed=7)
        params = GenerateParams(sampling, fresh_seed=fresh, max_tokens=6)
        return program.drain(program.generate(PROMPT, params))[0]

    assert [expected_tokens(PROMPT, 6, Sampling(1.0, seed=seed)) for seed in (100, 200, 7)] == [
        tokens(fresh=True),
        tokens(fresh=True),
        tokens(fresh=False),
    ]
    scheduler.stop()


def test_tokens_are_accounted_to_their_owner() -> None:
    """`on_tokens` and `owner_usage` add up to what each owner generated."""
    counted: Counter[str] = Counter()
    scheduler = Scheduler(
        DummyBackend(backend_config()),
        letters,
        on_tokens=lambda owner, num_tokens: counted.update({owner: num_tokens}),
    )
    scheduler.start()
    scheduler.add_owner("one", user="ann")
    programs = [Program(scheduler, owner) for owner in ("one", "two", "two")]
    requests = [program.generate(PROMPT, GenerateParams(max_tokens=9)) for program in programs]
    for program, request in zip(programs, requests, strict=True):
        program.drain(request)
    scheduler.stop()

    usage = scheduler.owner_usage("two")
    assert {"one": 9, "two": 18} == counted
    assert (12, 18, 2 * 4) == (usage.prompt_tokens, usage.generated_tokens, usage.kv_pages)
    assert scheduler.owner_usage("nobody").generated_tokens == 0


def test_stats_count_work(scheduler: Scheduler) -> None:
    """Counters and rates move with the batches, and an idle scheduler holds nothing."""
    program = Program(scheduler, "one")
    program.drain(program.generate(PROMPT, GenerateParams(max_tokens=10)))
    scheduler.drop_owner("one")
    stats = scheduler.stats()

    assert ("dummy", 10, 10, 15, 10) == (
        stats.model,
        stats.steps,
        stats.rows,
        stats.computed_tokens,
        stats.generated_tokens,
    )
    assert stats.generated_tokens_per_s > 0
    assert (0, 0, 256, 0) == (
        stats.running_requests,
        stats.contexts,
        stats.free_pages,
        stats.reserved_pages,
    )


def test_stats_tell_what_prefixes_saved(scheduler: Scheduler) -> None:
    """Pages of a dropped owner are free and cached; a second prompt hits them and counts so."""
    usages = []
    for owner in ("one", "two"):
        program = Program(scheduler, owner)
        program.drain(program.generate(PROMPT, GenerateParams(max_tokens=1)))
        usages.append(scheduler.owner_usage(owner).cached_tokens)
        scheduler.drop_owner(owner)
    stats = scheduler.stats()

    assert [0, 4] == usages
    assert (256, 1, 4, 4 / 12) == (
        stats.free_pages,
        stats.cached_pages,
        stats.found_tokens,
        stats.prefix_hit_rate,
    )


def test_silence_proves_the_page_accounting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that got lost is noticed when the scheduler falls idle, and is told; it serves on."""
    monkeypatch.setattr(service, "IDLE_CHECK_S", 0.01)
    scheduler = Scheduler(DummyBackend(backend_config()), letters)
    scheduler._state.contexts.pool.allocate()
    scheduler.start()
    until(lambda: scheduler.stats().integrity_error is not None)
    program = Program(scheduler, "one")

    assert (expected_tokens(PROMPT, 2), LENGTH) == program.drain(
        program.generate(PROMPT, GenerateParams(max_tokens=2))
    )
    assert "do not add up" in caplog.text
    scheduler.stop()


def test_a_journal_needs_the_adapters_that_computed_it(scheduler: Scheduler) -> None:
    """They are refused by name before a batch could ask the backend for them."""
    journal = Journal(b"\x01\x00\x00\x00" * 9, adapters=((0, None), (4, "one")))
    with pytest.raises(PieError, match="no adapter one is loaded") as caught:
        scheduler.open_journal("a", journal)
    assert caught.value.code == "not-found"
    assert scheduler.stats().contexts == 0


def test_pages_go_to_a_file_and_come_back(scheduler: Scheduler, tmp_path: Path) -> None:
    """Whoever asked is told, also when there was nothing to do."""
    told: list[str] = []
    context = scheduler.create_context("a")
    scheduler.append(context, list(range(1, 40)))
    program = Program(scheduler, "b")
    path = str(tmp_path / "pages")
    for job in (
        scheduler.store_pages(context, path, lambda: told.append("stored")),
        scheduler.load_pages(context, path, lambda: told.append("loaded")),
    ):
        until(lambda job=job: job.done)  # type: ignore[misc]
    until(lambda: told == ["stored", "loaded"])
    program.drain(program.generate([1, 2, 3], GenerateParams(max_tokens=2)))


def test_passes_through_the_thread(scheduler: Scheduler) -> None:
    """Sixteen programs loop over passes at once; each draws what it would alone."""

    def loop(number: int) -> list[int]:
        program = Program(scheduler, f"p{number}")
        context = scheduler.create_context(program.owner)
        scheduler.append(context, [number + 1, *PROMPT])
        tokens: list[int] = []
        for _ in range(8):
            spec = PassSpec(context, tokens[-1:], questions=[Sample(0, Sampling())])
            (request,) = scheduler.submit([spec], program.notify)
            program.wait(request)
            tokens += [token for token in scheduler.take_answers(request) if isinstance(token, int)]
            scheduler.drop_request(request)
        return tokens

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(loop, range(16)))

    assert [expected_tokens([number + 1, *PROMPT], 8) for number in range(16)] == found
    assert 16 * 8 == scheduler.stats().generated_tokens


def test_a_dead_backend_fails_passes_and_those_behind_them(
    stopped_at_gate: Scheduler, gated: Gated
) -> None:
    """Submitting never waits for the backend, and no program hangs on what will never come."""
    program = Program(stopped_at_gate, "one")
    context = stopped_at_gate.create_context("one")
    specs = [PassSpec(context, [1]), PassSpec(context, [2])]
    requests = stopped_at_gate.submit(specs, program.notify)
    gated.death = BackendError("it is gone")
    gated.gate.release(10)

    for request in requests:
        program.wait(request)
        with pytest.raises(PieError, match="it is gone"):
            stopped_at_gate.take_answers(request)
    with pytest.raises(PieError, match="it is gone"):
        stopped_at_gate.submit(specs, program.notify)


class Patient(Gathering):
    """Waits for whoever is missing, however long that takes."""

    def patience_s(self, num_here: int, now_s: float, num_prompt_tokens: int = 0) -> float:
        return (
            HANG_S
            if num_here and self._missing
            else super().patience_s(num_here, now_s, num_prompt_tokens)
        )


def test_programs_that_go_on_at_once_share_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops of forward passes in threads of their own do not split into groups that take turns."""
    monkeypatch.setattr(service, "Gathering", Patient)
    num_programs, num_passes = 8, 20
    scheduler = Scheduler(DummyBackend(backend_config()), letters)
    programs = [Program(scheduler, str(number)) for number in range(num_programs)]
    contexts = [scheduler.create_context(program.owner) for program in programs]
    ready = threading.Barrier(num_programs)

    def loop(program: Program, context: int) -> None:
        ready.wait(HANG_S)
        for _ in range(num_passes):
            (request,) = scheduler.submit([PassSpec(context, [7])], program.notify)
            program.wait(request)
            scheduler.drop_request(request)
        scheduler.drop_owner(program.owner)

    scheduler.start()
    with ThreadPoolExecutor(num_programs) as threads:
        list(threads.map(loop, programs, contexts))
    stats = scheduler.stats()
    scheduler.stop()

    assert num_programs * num_passes == stats.rows
    # Only at their beginning and end are some of them alone.
    assert stats.steps <= num_passes + num_programs
