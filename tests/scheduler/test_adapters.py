"""Generations with adapters: their KV is never taken for that of others, and what stays loaded."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import AdapterInfo, BackendConfig
from pie_backend.dummy import DummyBackend, expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.adapters import Adapters, Opening
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.service import Scheduler
from support.adapter_files import write_adapter_files
from support.stepping import Stepper, letters
from support.waiting import until

PROMPT = list(range(1, 14))


class Adapted(Stepper):
    """A stepper whose backend has two adapters, `x` and `y`."""

    def __init__(self, root: Path, num_pages: int = 64, host_pages: int = 0) -> None:
        super().__init__(num_pages=num_pages, host_pages=host_pages)
        self.x, self.y = (
            self.backend.load_adapter(str(write_adapter_files(root / str(r), r=r))).digest
            for r in (1, 2)
        )

    def generate(self, context: int, num_tokens: int, adapter: str | None) -> list[int]:
        params = GenerateParams(max_tokens=num_tokens, adapter=adapter)
        request = self.state.generate(context, params)
        self.run()
        return self.drain(request)

    def wanted(
        self, prompt: list[int], num_tokens: int, *runs: tuple[int, str | None]
    ) -> list[int]:
        """`runs`: so many tokens each; the last adapter goes on."""
        adapters = [adapter for count, adapter in runs for _ in range(count)]
        return expected_tokens(prompt, num_tokens, adapters=adapters)


@pytest.fixture
def stepper(tmp_path: Path) -> Adapted:
    return Adapted(tmp_path)


def test_rows_of_several_adapters_share_a_batch(stepper: Adapted) -> None:
    """And each generation gets its own tokens."""
    adapters = [None, stepper.x, stepper.y, stepper.x]
    requests = [
        stepper.state.generate(
            stepper.context(PROMPT), GenerateParams(max_tokens=9, adapter=adapter)
        )
        for adapter in adapters
    ]
    stepper.run()
    found = [stepper.drain(request) for request in requests]
    assert [stepper.wanted(PROMPT, 9, (1, adapter)) for adapter in adapters] == found
    assert {row.adapter for row in stepper.batches[-1].rows} == set(adapters)


@pytest.mark.parametrize("host_pages", [0, 3, 16])
def test_what_was_lost_is_computed_with_the_adapter_that_it_had(
    tmp_path: Path, host_pages: int
) -> None:
    """A context of several adapters is suspended after each turn, and no token changes."""
    stepper = Adapted(tmp_path, num_pages=10, host_pages=host_pages)
    calm = Adapted(tmp_path)
    found = []
    for each in (stepper, calm):
        context = each.context(PROMPT)
        made: list[list[int]] = []
        for adapter in (None, each.x, each.y, None):
            made.append(each.generate(context, 3, adapter))
            each.state.flush(each.context([*range(50, 90)], "two"))
            each.run()
            each.state.drop_owner("two")
            assert (each.state.contexts.get(context).suspended is not None) == (each is stepper)
            each.state.flush(context)
            each.run()
        found.append(made)

    assert found[0] == found[1]
    assert (stepper.state.counters.recomputed_tokens > 0) == (host_pages < 16)


def test_tokens_computed_before_stay_as_they_were(stepper: Adapted) -> None:
    """A generation computes what is pending; the KV before it is that of who computed it."""
    context = stepper.context(PROMPT)
    stepper.state.flush(context)
    stepper.run()
    stepper.state.append(context, [7, 8])
    prompt = [*PROMPT, 7, 8]
    first = stepper.generate(context, 6, stepper.x)
    assert stepper.wanted(prompt, 6, (13, None), (1, stepper.x)) == first

    # The last token drawn is pending: the next generation computes it.
    second = stepper.generate(context, 6, stepper.y)
    runs = [(13, None), (7, stepper.x), (1, stepper.y)]
    assert stepper.wanted(prompt + first, 6, *runs) == second
    third = stepper.generate(context, 6, None)
    runs = [*runs[:2], (6, stepper.y), (1, None)]
    assert stepper.wanted(prompt + first + second, 6, *runs) == third


def test_a_draw_without_pending_tokens_computes_the_last_one_with_its_adapter(
    stepper: Adapted,
) -> None:
    """Its logits are those of the adapter."""
    context = stepper.context(PROMPT)
    stepper.state.flush(context)
    stepper.run()
    found = stepper.generate(context, 5, stepper.x)
    assert stepper.wanted(PROMPT, 5, (12, None), (1, stepper.x)) == found


@pytest.mark.parametrize("first", [0, 1])
def test_prefixes_are_shared_among_equal_adapters_only(stepper: Adapted, first: int) -> None:
    """Pages of another adapter, or of none, are not found; pages of the same one are."""
    order = [None, stepper.x][:: 1 if first else -1]
    for adapter in order:
        stepper.generate(stepper.context(PROMPT), 5, adapter)
    assert 0 == stepper.state.counters.found_tokens
    for adapter in order:
        found = stepper.generate(stepper.context(PROMPT), 5, adapter)
        assert stepper.wanted(PROMPT, 5, (1, adapter)) == found
    assert 2 * 12 == stepper.state.counters.found_tokens


def test_programs_that_start_together_follow_only_the_same_adapter(stepper: Adapted) -> None:
    """A long prompt is computed once for each adapter."""
    prompt = [1 + i % 400 for i in range(90)]
    params = [GenerateParams(max_tokens=3, adapter=one) for one in [None, stepper.x] * 3]
    requests = [stepper.state.generate(stepper.context(prompt), one) for one in params]
    stepper.run()
    for request, one in zip(requests, params, strict=True):
        assert stepper.wanted(prompt, 3, (1, one.adapter)) == stepper.drain(request)
    assert 4 * 88 == stepper.state.counters.found_tokens


def test_forks_and_cuts_take_their_history_along(stepper: Adapted) -> None:
    """Contexts that forked, were cut and went on with other adapters, at random, against a list of
    (token, adapter)."""
    source = random.Random(5)
    live: list[tuple[int, list[int], list[str | None]]] = [(stepper.context(PROMPT), PROMPT, [])]
    for _ in range(200):
        context, tokens, history = source.choice(live)
        action = source.choice(["fork", "generate", "generate", "truncate"])
        if action == "fork" and len(live) < 4:
            live.append((stepper.state.fork(context), tokens[:], history[:]))
        elif action == "truncate" or len(tokens) > 60:
            length = source.randrange(1, 1 + min(len(tokens), 40))
            stepper.state.truncate(context, length)
            tokens[:], history[:] = tokens[:length], history[:length]
        elif action == "generate":
            adapter = source.choice([None, stepper.x, stepper.y])
            history[:] = history[: len(tokens) - 1]  # a draw computes the last token again
            history += [adapter] * (len(tokens) - len(history))
            count = source.randrange(1, 9)
            found = stepper.generate(context, count, adapter)
            assert expected_tokens(tokens, count, adapters=history) == found
            tokens[:] = tokens + found
            history += [adapter] * (count - 1)
    stepper.state.drop_owner("one")
    stepper.state.check()


# What stays loaded


class Loader:
    """A backend that only loads, two at a time."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.calls: list[str] = []

    def load_adapter(self, path: str) -> AdapterInfo:
        name = Path(path).name
        self.calls.append(name)
        if name == "dead":
            raise BackendError("it died")
        if name == "bad":
            raise AdapterError("unsupported", "use_dora")
        if name not in self.loaded:
            if len(self.loaded) == 2:
                raise AdapterError("quota", f"no room for {name}", no_room=True)
            self.loaded.append(name)
        return AdapterInfo(name, 10)

    def unload_adapter(self, digest: str) -> None:
        self.loaded.remove(digest)


class Holding:
    """Adapters over a loader, without a scheduler; `in_contexts` is the test's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loader = Loader()
        self.in_contexts: set[str] = set()
        self.notified = 0
        self.adapters = Adapters(threading.Lock(), lambda: None, lambda: self.in_contexts)

    def ask(self, name: str) -> Opening:
        return self.adapters.open(write_adapter_files(self.root / name), self.notify)

    def open(self, name: str) -> Opening:
        opening = self.ask(name)
        self.adapters.work(self.loader)  # type: ignore[arg-type]
        assert opening.done
        return opening

    def notify(self) -> None:
        self.notified += 1


@pytest.fixture
def holding(tmp_path: Path) -> Holding:
    return Holding(tmp_path)


def test_equal_files_are_loaded_once(holding: Holding) -> None:
    """A second program has it at once, and again after both have let go."""
    opening = holding.open("a")
    holding.adapters.close(opening)
    again = holding.adapters.open(opening.path, holding.notify)
    assert (again.done, again.digest, holding.notified) == (True, "a", 1)
    assert ["a"] == holding.loader.calls


def test_the_least_recently_used_one_goes(holding: Holding) -> None:
    """Of those that nobody holds and no context has."""
    for name in ("a", "b"):
        holding.adapters.close(holding.open(name))
    holding.adapters.require("a")
    held = holding.open("c")
    assert ["a", "c"] == holding.loader.loaded
    holding.adapters.close(holding.open("d"))
    assert ["c", "d"] == holding.loader.loaded
    assert (2, 20) == (holding.adapters.num_loaded, holding.adapters.num_bytes)
    holding.adapters.close(held)
    holding.in_contexts = {"c"}
    holding.adapters.close(holding.open("e"))
    assert ["c", "e"] == holding.loader.loaded
    with pytest.raises(PieError, match="no adapter d is loaded"):
        holding.adapters.require("d")


def test_what_is_in_use_makes_no_room(holding: Holding) -> None:
    """The next one is refused and says so; it is loaded when one is let go."""
    held = [holding.open("a"), holding.open("b")]
    refused = holding.open("c")
    assert refused.error is not None
    assert "quota" == refused.error.code
    assert "no room for c, and programs use all of them" in refused.error.message
    holding.adapters.close(held[0])
    assert "c" == holding.open("c").digest


def test_refusals_travel(holding: Holding, tmp_path: Path) -> None:
    """A bad adapter is the asking program's own trouble."""
    bad = holding.open("bad")
    assert bad.error is not None
    assert ("unsupported", "use_dora") == (bad.error.code, bad.error.message)
    assert "a" == holding.open("a").digest
    with pytest.raises(PieError, match="nowhere") as refused:
        holding.adapters.open(tmp_path / "nowhere", holding.notify)
    assert "not-found" == refused.value.code


def test_whoever_ends_while_waiting_holds_nothing(holding: Holding) -> None:
    """What is closed before it is loaded is not loaded for it."""
    opening = holding.ask("a")
    holding.adapters.close(opening)
    holding.adapters.work(holding.loader)  # type: ignore[arg-type]
    assert ([], None) == (holding.loader.calls, opening.digest)


def test_a_dead_backend_ends_every_wait(holding: Holding) -> None:
    """Those that wait and those that come."""
    openings = [holding.ask("dead"), holding.ask("a")]
    with pytest.raises(BackendError):
        holding.adapters.work(holding.loader)  # type: ignore[arg-type]
    holding.adapters.fail(PieError("internal", "it died"))
    assert ["internal"] * 2 == [one.error.code for one in openings if one.error]
    with pytest.raises(PieError, match="it died"):
        holding.ask("b")


# Through the scheduler's thread


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    config = BackendConfig(
        name="dummy", kind="dummy", path="", page_size=4, kv_pages=64, adapter_bytes=2000
    )
    scheduler = Scheduler(DummyBackend(config), letters)
    scheduler.start()
    yield scheduler
    scheduler.stop()


Open = Callable[[Path], Opening]


@pytest.fixture
def opened(scheduler: Scheduler) -> Open:
    def open_and_wait(path: Path) -> Opening:
        opening = scheduler.adapters.open(path, lambda: None)
        until(lambda: opening.done)
        return opening

    return open_and_wait


def test_a_context_keeps_its_adapters(scheduler: Scheduler, opened: Open, tmp_path: Path) -> None:
    """Its tokens may have to be computed again; once it is dropped, others may come."""
    small = opened(write_adapter_files(tmp_path / "small", num_floats=250))
    context = scheduler.create_context("one")
    scheduler.append(context, PROMPT)
    params = GenerateParams(max_tokens=4, chunk_tokens=0, adapter=small.digest)
    request = scheduler.generate(context, params, lambda: None)
    until(lambda: scheduler.ready(request))
    assert small.digest is not None
    chunk = scheduler.take(request)
    assert chunk is not None
    assert expected_tokens(PROMPT, 4, adapters=[small.digest]) == chunk.tokens
    assert (1, True) == (scheduler.stats().adapters, scheduler.stats().adapter_bytes > 1000)

    scheduler.adapters.close(small)
    large = write_adapter_files(tmp_path / "large", num_floats=300)
    refused = opened(large)
    assert refused.error is not None
    assert "quota" == refused.error.code
    scheduler.drop_context(context)
    assert opened(large).error is None
    with pytest.raises(PieError, match="is loaded"):
        scheduler.generate(scheduler.create_context("one"), params, lambda: None)
    scheduler.drop_owner("one")
