"""Pages on their way to files and back: between batches, and never in anybody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_backend.dummy import expected_tokens
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.page_jobs import PageJob
from pie_daemon.scheduler.params import GenerateParams
from support.stepping import Stepper

PROMPT = list(range(1, 31))  # seven whole pages of four, and two tokens


def move(stepper: Stepper, num_batches: int = 99) -> list[PageJob]:
    """What the service does between batches; the jobs that came to an end."""
    ended: list[PageJob] = []
    for _ in range(num_batches):
        batch, done = stepper.state.move_pages()
        ended += done
        if batch is None:
            break
        result = stepper.backend.execute(batch)
        ended += stepper.state.saving.jobs.land(result)
        stepper.state.check()
    return ended


def store(path: Path) -> tuple[Journal, PageJob]:
    """Of a context whose last two pages saw less than the others."""
    stepper = Stepper()
    context = stepper.context(PROMPT[:22])
    stepper.state.flush(context)
    stepper.run()
    stepper.state.set_visible(context, 2, 9, False)
    stepper.state.append(context, PROMPT[22:])
    stepper.state.flush(context)
    stepper.run()
    job = stepper.state.saving.store_pages(context, str(path), lambda: None)
    assert [job] == move(stepper)
    return stepper.state.saving.snapshot(context), job


HIDDEN = [*([()] * 21), *([((2, 9),)] * 9)]


def generated(stepper: Stepper, context: int) -> list[int]:
    request = stepper.state.generate(context, GenerateParams(max_tokens=5))
    stepper.run()
    return stepper.drain(request)


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_loaded_pages_are_found_like_any_cached_ones(tmp_path: Path, chunk: int) -> None:
    """In another daemon; nothing but the last page is computed."""
    journal, stored = store(tmp_path / "pages")
    assert (7, None) == (stored.num_moved, stored.failure)
    stepper = Stepper()
    stepper.state.saving.jobs._max_pages = chunk
    context = stepper.state.open_journal("two", journal)
    loaded = stepper.state.saving.load_pages(context, str(tmp_path / "pages"), lambda: None)
    assert [loaded] == move(stepper)
    pool = stepper.state.contexts.pool
    assert (pool.num_pages, 7) == (pool.num_free, pool.num_cached)
    assert expected_tokens(PROMPT, 5, hidden=HIDDEN) == generated(stepper, context)
    assert stepper.state.counters.found_tokens == 28


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_what_cannot_be_read_is_computed(tmp_path: Path, damage: str) -> None:
    """The job tells why; the tokens are the same."""
    path = tmp_path / "pages"
    journal, _ = store(path)
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-30], "flip": b"\x00" + content[1:]}.get(damage, b""))
    if damage == "gone":
        path.unlink()
    stepper = Stepper()
    stepper.state.saving.jobs._max_pages = 2
    context = stepper.state.open_journal("two", journal)
    loaded = stepper.state.saving.load_pages(context, str(path), lambda: None)
    move(stepper)
    assert loaded.done
    assert str(path) in (loaded.failure or "")
    assert expected_tokens(PROMPT, 5, hidden=HIDDEN) == generated(stepper, context)
    assert stepper.state.counters.found_tokens == (24 if damage == "cut" else 0)


def test_what_is_in_the_cache_is_not_read_again(tmp_path: Path) -> None:
    """Not even where only the middle is missing."""
    journal, _ = store(tmp_path / "pages")
    stepper = Stepper()
    for times in (1, 2):
        context = stepper.state.open_journal("two", journal)
        job = stepper.state.saving.load_pages(context, str(tmp_path / "pages"), lambda: None)
        move(stepper)
        assert job.num_moved == (7 if times == 1 else 0)


def test_a_load_takes_nothing_that_was_promised(tmp_path: Path) -> None:
    """With a pool of eight pages and six reserved, two are read."""
    journal, _ = store(tmp_path / "pages")
    stepper = Stepper(num_pages=8)
    stepper.start([40], 21)
    stepper.step()
    context = stepper.state.open_journal("two", journal)
    job = stepper.state.saving.load_pages(context, str(tmp_path / "pages"), lambda: None)
    move(stepper)
    assert (True, None) == (job.done, job.failure)
    assert job.num_moved == 8 - 6
    assert stepper.run() == 20


def test_jobs_end_with_their_owners(tmp_path: Path) -> None:
    """Whoever is gone holds nothing, in the middle of it or before it began."""
    journal, _ = store(tmp_path / "pages")
    stepper = Stepper()
    stepper.state.saving.jobs._max_pages = 2
    context = stepper.state.open_journal("two", journal)
    jobs = [
        stepper.state.saving.load_pages(context, str(tmp_path / "pages"), lambda: None)
        for _ in range(2)
    ]
    move(stepper, 1)
    for job in jobs:
        job.cancelled = True
    stepper.state.drop_owner("two")
    move(stepper)
    assert all(job.done for job in jobs)
    stepper.state.check()
    assert stepper.state.contexts.pool.num_free == 64


def test_a_store_ends_where_pages_were_given_up(tmp_path: Path) -> None:
    """What was written by then is good."""
    stepper = Stepper()
    stepper.state.saving.jobs._max_pages = 2
    context = stepper.context(PROMPT)
    stepper.state.flush(context)
    stepper.run()
    job = stepper.state.saving.store_pages(context, str(tmp_path / "pages"), lambda: None)
    move(stepper, 1)
    stepper.state.truncate(context, 0)
    move(stepper)
    assert (True, 2) == (job.done, job.num_moved)


def test_the_end_of_the_backend_ends_the_jobs(tmp_path: Path) -> None:
    """With the reason, so that nobody waits for ever."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    job = stepper.state.saving.store_pages(context, str(tmp_path / "pages"), lambda: None)
    assert [job] == stepper.state.saving.jobs.fail("it died")
    assert (True, "it died") == (job.done, job.failure)
