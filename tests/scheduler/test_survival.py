"""Real worker processes that are killed at every point of a load: no program notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pie_backend.base import Backend, BackendError
from pie_backend.batch import BackendConfig, Batch
from pie_backend.create import create_backend
from pie_backend.dummy import expected_tokens, vocabulary_of
from pie_backend.lifeline import Lifeline
from pie_backend.tokenizer import Tokenizer
from pie_daemon.errors import PieError
from pie_daemon.scheduler.adapters import Opening
from pie_daemon.scheduler.backoff import Backoff
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import LENGTH
from pie_daemon.scheduler.service import Scheduler
from pie_daemon.scheduler.worker import Worker
from support.adapter_files import write_adapter_files
from support.load import Load
from support.mortal import MOMENTS, Fate, Moment, kill
from support.waiting import until

CONFIG = BackendConfig(
    name="dummy", kind="dummy", path="crumb", page_size=4, kv_pages=96, host_pages=16
)
PROMPT = [11, 12, 13, 14, 15, 16]
VOCABULARY = vocabulary_of("crumb")


class Life:
    """A scheduler over workers with a fate."""

    def __init__(self, config: BackendConfig = CONFIG, backoff: Backoff | None = None) -> None:
        self.fate = Fate(config)
        self.worker = Worker.start(self.fate.build, backoff=backoff or Backoff(first_s=0))
        token_bytes = Tokenizer("crumb").token_bytes
        self.scheduler = Scheduler(self.worker, token_bytes)
        self.scheduler.start()

    def start(self, owner: str, params: GenerateParams, prompt: list[int] = PROMPT) -> int:
        context = self.scheduler.create_context(owner)
        self.scheduler.append(context, prompt)
        return self.scheduler.generate(context, params, lambda: None)

    def tokens(self, request: int) -> list[int]:
        until(lambda: self.scheduler.ready(request))
        chunk = self.scheduler.take(request)
        assert chunk is not None
        return chunk.tokens

    def generate(self, num_tokens: int, owner: str = "one") -> list[int]:
        params = GenerateParams(max_tokens=num_tokens, chunk_tokens=0, ignore_eos=True)
        return self.tokens(self.start(owner, params))

    def close(self) -> None:
        self.scheduler.check()
        self.scheduler.stop()
        self.worker.close()


def expected(num_tokens: int) -> list[int]:
    return expected_tokens(PROMPT, num_tokens, vocabulary=VOCABULARY)


@pytest.fixture
def life() -> Iterator[Life]:
    life = Life()
    yield life
    life.close()


@pytest.fixture
def load(life: Life, tmp_path: Path) -> Load:
    return Load(life.scheduler, write_adapter_files(tmp_path / "adapter"))


def test_deaths_at_some_points(life: Life, load: Load) -> None:
    """In the first batches, in the middle and near the end, each in another way."""
    calm = load.run("calm")
    for step, moment in ((1, "during"), (2, "after"), (9, "between"), (18, "before")):
        check_death(life, load, calm, step, moment)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_death_at_every_step_changes_nothing(life: Life, load: Load, moment: Moment) -> None:
    """Tokens, texts and counts are those of the run without it."""
    calm = load.run("calm")
    for step in range(1, life.fate.num_batches + 3):
        check_death(life, load, calm, step, moment)


def check_death(life: Life, load: Load, calm: list[Any], step: int, moment: Moment) -> None:
    before, so_far = life.fate.num_batches, life.scheduler.stats().worker.deaths
    life.fate.moment, life.fate.deaths = moment, {before + step}
    assert calm == load.run(f"{moment}-{step}-"), f"{moment} batch {step}"
    life.scheduler.check()
    died = life.fate.num_batches >= before + step
    until(lambda: life.scheduler.stats().worker.deaths == so_far + died)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_that_dies_all_the_time(life: Life, load: Load, moment: Moment) -> None:
    """At every fifth batch: each life gets everybody a little further, and nobody is blamed."""
    calm = load.run("calm")
    before = life.fate.num_batches
    life.fate.moment = moment
    life.fate.deaths = range(before + 1, before + 1000, 5)
    assert calm == load.run("dying")
    assert life.scheduler.stats().worker.deaths > 3


def test_a_death_while_nothing_is_asked(life: Life) -> None:
    """It is noticed at once, reaped and replaced: the next program need not wait for that."""
    life.generate(3)
    (pid,) = life.fate.pids
    kill(pid)
    until(lambda: life.scheduler.stats().worker.last_pause_s > 0)
    stats = life.scheduler.stats().worker
    assert ("serving", 1, 2) == (stats.state, stats.deaths, len(life.fate.pids))
    assert "SIGKILL" in (stats.last_cause or "")
    assert not psutil.pid_exists(pid)
    assert expected(5) == life.generate(5)


def test_the_dead_leave_nothing(life: Life) -> None:
    """No process, no descriptor, no thread."""
    life.generate(2)
    process = psutil.Process()
    before = process.num_fds(), threading.active_count(), len(process.children())
    for number in range(8):
        life.fate.moment = MOMENTS[number % 4]
        life.fate.deaths = {life.fate.num_batches + 2}
        assert expected(6) == life.generate(6, f"owner {number}")
        life.scheduler.drop_owner(f"owner {number}")
    until(lambda: life.scheduler.stats().worker.deaths == 8)
    until(lambda: life.scheduler.stats().worker.state == "serving")
    assert before == (process.num_fds(), threading.active_count(), len(process.children()))
    assert not any(psutil.pid_exists(pid) for pid in life.fate.pids[:-1])


def has_token(token: int) -> Callable[[Batch], bool]:
    return lambda batch: any(token in row.tokens for row in batch.rows)


@pytest.mark.parametrize("drawn", [False, True])
def test_the_request_that_kills_is_found(life: Life, load: Load, drawn: bool) -> None:
    """It fails and says so, whether its prompt kills or a token that it draws; all others get
    their tokens, and the next death is a first one again."""
    calm = load.run("calm")
    bad = expected(4)[-1] if drawn else 1900
    life.fate.kills = has_token(bad)
    params = GenerateParams(max_tokens=30, chunk_tokens=0, ignore_eos=True)
    request = life.start("killer", params, PROMPT if drawn else [*PROMPT, bad])
    assert calm == load.run("beside")
    until(lambda: life.scheduler.ready(request))
    with pytest.raises(
        PieError, match="workers died again and again when they computed this"
    ) as caught:
        life.scheduler.take(request)
    assert "internal" == caught.value.code
    assert 4 == life.scheduler.stats().worker.deaths
    assert 0 == life.worker._backoff.num_failures


def test_a_worker_that_cannot_start_again(caplog: pytest.LogCaptureFixture) -> None:
    """Requests wait and new ones queue; who looks is told why; a replacement ends the wait at
    once."""
    life = Life(backoff=Backoff(first_s=3600, most_s=3600))
    request = life.start("one", GenerateParams(max_tokens=9, chunk_tokens=0, ignore_eos=True))
    life.tokens(request)
    gone = life.fate.changed(path="/gone")
    life.worker._build = gone
    kill(life.fate.pids[-1])
    until(lambda: life.scheduler.stats().worker.attempt == 2)
    waiting = life.start("two", GenerateParams(max_tokens=9, chunk_tokens=0, ignore_eos=True))
    trouble = life.scheduler.stats().worker.trouble or ""
    assert "attempt 2, next in 3600 s: no model directory at /gone" in trouble
    assert not life.scheduler.ready(waiting)
    until(lambda: "start 2 in 3600 s" in caplog.text)
    done = life.worker.replace(life.fate.build, beside=False)
    assert ("applied", "") == (done.outcome, done.reason)
    assert expected(9) == life.tokens(waiting)
    life.close()


def test_stop_does_not_wait_for_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    """Neither for the pause before it; programs are told `closed`."""
    life = Life(backoff=Backoff(first_s=3600, most_s=3600))
    life.worker._build = life.fate.changed(path="/gone")
    kill(life.fate.pids[-1])
    until(lambda: life.scheduler.stats().worker.attempt == 2)
    waiting = life.start("one", GenerateParams(max_tokens=9))
    assert time_of(life.scheduler.stop) < 1
    with pytest.raises(PieError) as caught:
        life.scheduler.take(waiting)
    assert "closed" == caught.value.code
    life.close()


def test_stop_ends_a_worker_that_is_loading() -> None:
    """It loads for a minute, and is gone at once."""
    life = Life()
    loading = threading.Event()
    pids: list[int] = []
    others = set(psutil.Process().children())

    def build(lifeline: Lifeline) -> Backend:
        hold = lifeline.hold

        def stopped(end: Callable[[], None]) -> None:
            """Called when the process is there and its model is not."""
            (child,) = set(psutil.Process().children()) - others
            child.suspend()
            pids.append(child.pid)
            hold(end)
            loading.set()

        lifeline.hold = stopped  # type: ignore[method-assign]
        return create_backend(CONFIG, lifeline)

    life.worker._build = build
    kill(life.fate.pids[-1])
    assert loading.wait(30)
    assert time_of(life.scheduler.stop) < 1
    assert not psutil.pid_exists(pids[0])
    life.close()


def time_of(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


# Pages in files


def computed(life: Life, owner: str) -> int:
    """A context of 79 tokens, with their pages."""
    context = life.scheduler.create_context(owner)
    life.scheduler.append(context, [*range(1, 80)])
    request = life.scheduler.generate(
        context, GenerateParams(max_tokens=1, chunk_tokens=0, ignore_eos=True), lambda: None
    )
    life.tokens(request)
    return context


def test_a_death_while_pages_are_stored(life: Life, tmp_path: Path) -> None:
    """Whoever asked is told; computed again, they can be stored."""
    path = str(tmp_path / "pages")
    context = computed(life, "one")
    life.fate.deaths = {life.fate.num_batches + 1}
    store = life.scheduler.store_pages(context, path, lambda: None)
    until(lambda: store.done)
    assert (0, True) == (store.num_moved, "SIGKILL" in (store.failure or ""))
    store = life.scheduler.store_pages(computed(life, "two"), path, lambda: None)
    until(lambda: store.done)
    assert (19, None) == (store.num_moved, store.failure)


@pytest.mark.parametrize("moving", [True, False])
def test_a_death_while_pages_are_loaded(life: Life, tmp_path: Path, moving: bool) -> None:
    """A load that dies with its worker is over, and its pages are computed; one that waits is done
    by the next worker."""
    path = str(tmp_path / "pages")
    store = life.scheduler.store_pages(computed(life, "one"), path, lambda: None)
    until(lambda: store.done)
    life.scheduler.drop_owner("one")
    may_start = threading.Event()

    def build(lifeline: Lifeline) -> Backend:
        assert may_start.wait(60)
        return life.fate.build(lifeline)

    life.worker._build = build
    kill(life.fate.pids[-1])
    until(lambda: life.scheduler.stats().worker.state == "restarting")
    context = life.scheduler.create_context("two")
    life.scheduler.append(context, [*range(1, 80)])
    life.fate.deaths = {life.fate.num_batches + 1} if moving else ()
    load = life.scheduler.load_pages(context, path, lambda: None)
    may_start.set()
    until(lambda: load.done)
    found = load.num_moved, life.scheduler.stats().worker.deaths
    assert ((0, 2) if moving else (19, 1)) == found
    assert 1 == len(life.generate(1, "three"))


# Adapters


def with_adapter(opening: Opening, num_tokens: int = 5) -> GenerateParams:
    return GenerateParams(
        max_tokens=num_tokens, chunk_tokens=1, adapter=opening.digest, ignore_eos=True
    )


def test_adapters_that_cannot_come_back(life: Life, tmp_path: Path) -> None:
    """Who needs one is told which and why; others go on, and who opens it again has it."""
    kept = opened(life, write_adapter_files(tmp_path / "kept", r=2))
    here = write_adapter_files(tmp_path / "here")
    gone = opened(life, here)
    request = life.start("one", with_adapter(gone, 300))
    life.tokens(request)
    here.rename(tmp_path / "away")
    kill(life.fate.pids[-1])
    until(lambda: life.scheduler.stats().worker.last_pause_s > 0)
    until(lambda: life.scheduler.stats().running_requests == 0)
    for call in (
        lambda: life.scheduler.take(request),
        lambda: life.start("two", with_adapter(gone)),
    ):
        with pytest.raises(PieError, match=f"{gone.digest} could not be loaded again") as caught:
            call()
        assert "internal" == caught.value.code
    first = expected_tokens(PROMPT, 1, vocabulary=VOCABULARY, adapters=[str(kept.digest)])
    assert first == life.tokens(life.start("three", with_adapter(kept)))[:1]
    (tmp_path / "away").rename(here)
    assert gone.digest == opened(life, here).digest
    assert life.tokens(life.start("four", with_adapter(gone)))


def opened(life: Life, path: Path) -> Opening:
    opening = life.scheduler.adapters.open(path, lambda: None)
    until(lambda: opening.done)
    return opening


# Replacing


@pytest.mark.parametrize("beside", [False, True])
def test_another_backend_takes_over(life: Life, load: Load, beside: bool) -> None:
    """In the middle of a load, with another pool: tokens are the same, and so is what others ask
    it for."""
    calm = load.run("calm")
    got: list[list[Any]] = []
    thread = threading.Thread(target=lambda: got.append(load.run("moved")))
    thread.start()
    until(lambda: life.scheduler.stats().owners > 0)
    done = life.worker.replace(life.fate.changed(kv_pages=80, host_pages=3), beside=beside)
    thread.join()
    assert ("applied", [calm]) == (done.outcome, got)
    stats = life.scheduler.stats()
    assert (80, 3, 80) == (stats.num_pages, stats.host_pages, life.scheduler.info.num_pages)
    assert ("serving", 0) == (stats.worker.state, stats.worker.deaths)
    assert not psutil.pid_exists(life.fate.pids[0])
    kill(life.fate.pids[-1])
    until(lambda: life.scheduler.stats().worker.deaths == 1)
    until(lambda: life.scheduler.stats().worker.state == "serving")
    assert 80 == life.scheduler.info.num_pages


@pytest.mark.parametrize("beside", [False, True])
def test_a_replacement_that_cannot_be_built(life: Life, beside: bool) -> None:
    """The old one is there again, or never left, and whoever asked knows why."""
    request = life.start("one", GenerateParams(max_tokens=60, chunk_tokens=0, ignore_eos=True))
    done = life.worker.replace(life.fate.changed(path="/gone"), beside=beside)
    assert "no model directory at /gone" in done.reason
    assert done.outcome in ("rolled_back", "failed_to_restore")
    assert expected(60) == life.tokens(request)


def test_neither_the_new_nor_the_old(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asked is told that too, and the wait for the old one begins."""
    life = Life(backoff=Backoff(first_s=0.01))
    life.worker._build = life.fate.changed(path="/gone")
    done = life.worker.replace(life.fate.changed(path="/nowhere"), beside=False)
    assert ("failed_to_restore", True) == (done.outcome, "/nowhere" in done.reason)
    life.worker._build = life.fate.build
    assert expected(3) == life.generate(3)
    life.close()


def test_another_model_is_refused(life: Life) -> None:
    """Contexts are bound to the tokens that they are made of."""
    done = life.worker.replace(life.fate.changed(path=""), beside=True)
    assert "rolled_back" == done.outcome
    assert "its contexts are bound to what was loaded" in done.reason
    assert expected(3) == life.generate(3)


def test_a_request_that_does_not_fit_any_more(life: Life) -> None:
    """It fails with the numbers; one that was to make what there is room for makes less."""
    long = life.start("one", GenerateParams(max_tokens=250, chunk_tokens=0, ignore_eos=True))
    free = life.start("two", GenerateParams(chunk_tokens=0, ignore_eos=True))
    life.worker.replace(life.fate.changed(kv_pages=8, host_pages=0), beside=False)
    until(lambda: life.scheduler.ready(long))
    with pytest.raises(PieError, match="255 tokens need 64 pages of 4; the pool has 8") as caught:
        life.scheduler.take(long)
    assert "exhausted" == caught.value.code
    assert expected(8 * 4 - len(PROMPT) + 1) == life.tokens(free)
    assert LENGTH == life.scheduler.finish(free)


def test_a_backend_of_one_life_is_not_replaced() -> None:
    """Nobody told how to bring it back."""
    backend = create_backend(CONFIG)
    worker = Worker(backend)
    done = worker.replace(lambda lifeline: create_backend(CONFIG), beside=False)
    assert ("rejected", True) == (done.outcome, "could not come back" in done.reason)
    worker.close()
    with pytest.raises(BackendError):
        backend.execute(Batch(0, []))
