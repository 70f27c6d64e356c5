"""The scheduler's thread and lock around the pure state machine; one service per model.

Programs call in from their own threads under a short lock that is never held while the backend
computes. The scheduler's thread goes round `take -> decide -> run -> deliver`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import msgspec

from pie_backend.base import Backend, BackendError
from pie_backend.batch import BackendInfo, Batch, BatchResult
from pie_daemon.errors import PieError
from pie_daemon.scheduler.adapters import Adapters
from pie_daemon.scheduler.alarm import Alarm
from pie_daemon.scheduler.common import Common
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.gathering import Gathering, num_prompt_tokens
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.masks import MaskMaker
from pie_daemon.scheduler.owners import TokenBudget
from pie_daemon.scheduler.page_jobs import PageJob
from pie_daemon.scheduler.pages import IntegrityError
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import Answer, PassSpec
from pie_daemon.scheduler.recovery import Recovery
from pie_daemon.scheduler.request import Chunk, Finish, Usage
from pie_daemon.scheduler.state import SchedulerState
from pie_daemon.scheduler.stats import RateMeter, SchedulerStats, stats_of
from pie_daemon.scheduler.telling import Notify, Teller, Wake
from pie_daemon.scheduler.worker import Worker

_log = logging.getLogger(__name__)

IDLE_CHECK_S = 1.0
"""Silence after which the page accounting is proved, once."""


class OwnerUsage(msgspec.Struct, frozen=True):
    """What one instance used of this model so far."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    kv_pages: int = 0
    """Held now; shared ones count in each context."""


def _random_seed() -> int:
    # Not the system's numbers: they give up the interpreter lock, and nobody guards a secret here.
    return random.getrandbits(64)


class Scheduler:
    """Thread-safe. Every method raises PieError; none of them waits for the backend.

    `token_bytes` gives the bytes of a token in the text (none for special tokens), and is asked
    once per token; `on_tokens` is told by the scheduler's thread how many tokens a batch brought an
    owner. The backend stays the caller's, who closes it after `stop`; a worker has it built again
    when it dies.
    """

    def __init__(
        self,
        backend: Backend | Worker,
        token_bytes: Callable[[int], bytes],
        config: SchedulerConfig | None = None,
        *,
        on_tokens: Callable[[str, int], None] | None = None,
        fresh_seed: Callable[[], int] = _random_seed,
        common: Common | None = None,
    ) -> None:
        """`common`: with other schedulers, between which users and families are served evenly."""
        common = common or Common()
        self._worker = backend if isinstance(backend, Worker) else Worker(backend)
        self._on_tokens = on_tokens
        self._fresh_seed = fresh_seed
        self._lock = common.lock
        self._wake = Alarm()
        self._idle = True
        self._stopping = False
        self._failure: PieError | None = None
        self._integrity_error: str | None = None
        self._notify: dict[int, Notify] = {}
        self._teller = Teller(self.info.name)
        self._masks = MaskMaker(self.info.name, self._wake.set)
        self._last_batch, self._begun_s = Batch(step=0, rows=[]), 0.0
        self._computed = RateMeter()
        self._generated = RateMeter()
        config = config or SchedulerConfig()
        self._state = SchedulerState(self.info, config, cache(token_bytes), time.monotonic)
        self._state.join(common.shares)
        self._gathering = Gathering(config.gather_share, common.awake)
        self.adapters = Adapters(self._lock, self._wake.set, self._state.contexts.adapters_in_use)
        self._recovery = Recovery(
            self._worker, self._state, self.adapters, self._lock, self._notify_all
        )
        self._thread = threading.Thread(
            target=self._main, name=f"scheduler-{self.info.name}", daemon=True
        )

    @property
    def info(self) -> BackendInfo:
        """Of the backend that serves, or served last."""
        return self._worker.info

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
        """Makes an instance known before its first context; without it, it is its own family."""
        with self._lock:
            self._state.owners.add(owner, user, root, budget, max_kv_pages)

    def drop_owner(self, owner: str) -> None:
        """Cancels and frees everything of an instance; an unknown one is fine."""
        with self._lock:
            known = self._state.owners.find(owner)
            for request_id in known.requests if known else ():
                self._notify.pop(request_id, None)
            self._state.drop_owner(owner)
            self._gathering.gone(owner)
        self._wake.set()

    def owner_usage(self, owner: str) -> OwnerUsage:
        """Zeros for an unknown owner."""
        with self._lock:
            known = self._state.owners.find(owner)
            if known is None:
                return OwnerUsage()
            return OwnerUsage(
                known.prompt_tokens,
                known.cached_tokens,
                known.generated_tokens,
                self._state.contexts.num_held_by(known),
            )

    # Contexts

    def create_context(self, owner: str) -> int:
        with self._lock:
            return self._state.create_context(owner)

    def append(self, context: int, tokens: Sequence[int]) -> None:
        with self._lock:
            self._state.append(context, tokens)

    def fork(self, context: int) -> int:
        with self._lock:
            return self._state.fork(context)

    def snapshot(self, context: int) -> Journal:
        """What there is to save of a context."""
        with self._lock:
            return self._state.saving.snapshot(context)

    def open_journal(self, owner: str, journal: Journal) -> int:
        """A context with that content. Raises: PieError: `not-found` for an adapter that computed
        some of it and is not open."""
        with self._lock:
            for _, adapter in journal.adapters:
                self.adapters.require(adapter)
            return self._state.open_journal(owner, journal)

    def store_pages(self, context: int, path: str, notify: Wake) -> PageJob:
        """Writes what is computed of a context to a file; `notify` is called when it is done."""
        with self._lock:
            self._require_alive()
            job = self._state.saving.store_pages(context, path, notify)
        self._wake.set()
        return job

    def load_pages(self, context: int, path: str, notify: Wake) -> PageJob:
        """Reads it into the cache, as far as there is room."""
        with self._lock:
            self._require_alive()
            job = self._state.saving.load_pages(context, path, notify)
        self._wake.set()
        return job

    def set_visible(self, context: int, start: int, end: int, visible: bool) -> None:
        """For the last token and those that are computed from now on."""
        with self._lock:
            self._state.set_visible(context, start, end, visible)
            self._changed()

    def set_priority(self, context: int, priority: int) -> None:
        with self._lock:
            self._state.set_priority(context, priority)
            self._changed()

    def truncate(self, context: int, length: int) -> None:
        with self._lock:
            self._state.truncate(context, length)
            self._changed()

    def length(self, context: int) -> int:
        with self._lock:
            return self._state.length(context)

    def tokens(self, context: int, start: int, end: int) -> list[int]:
        with self._lock:
            return self._state.tokens(context, start, end)

    def drop_context(self, context: int) -> None:
        """Cancels a request that runs on it."""
        with self._lock:
            self._state.drop_context(context)
            self._changed()

    # Requests

    def generate(self, context: int, params: GenerateParams, notify: Notify) -> int:
        """`notify` is called by the scheduler's thread each time there is something to take."""
        if params.fresh_seed:
            sampling = msgspec.structs.replace(params.sampling, seed=self._fresh_seed())
            params = replace(params, sampling=sampling, fresh_seed=False)
        with self._lock:
            self._require_alive()
            self.adapters.require_for(self._state.contexts.get(context), params.adapter)
            request = self._state.generate(context, params)
            self._notify[request] = notify
            self._come(context)
        return request

    def flush(self, context: int, notify: Notify) -> int | None:
        """None: everything appended is computed already."""
        with self._lock:
            self._require_alive()
            self.adapters.require_for(self._state.contexts.get(context), None)
            request = self._state.flush(context)
            if request is not None:
                self._notify[request] = notify
                self._come(context)
        return request

    def submit(self, passes: Sequence[PassSpec], notify: Notify) -> list[int]:
        """Admitted together; `notify` is called once for each of them, when it is ready."""
        with self._lock:
            self._require_alive()
            for one in passes:
                self.adapters.require_for(self._state.contexts.get(one.context), one.adapter)
            requests = self._state.submit(passes)
            self._notify.update(dict.fromkeys(requests, notify))
            self._come(passes[0].context)
        return requests

    def take_answers(self, request: int) -> list[Answer]:
        """Of a pass that is ready, once.

        Raises: PieError: why the pass failed.
        """
        with self._lock:
            return self._state.take_answers(request)

    def new_seed(self) -> int:
        """For a program that gave none."""
        return self._fresh_seed()

    def ready(self, request: int) -> bool:
        with self._lock:
            return self._state.ready(request)

    def take(self, request: int) -> Chunk | None:
        """What is ready, from then on handed out; None: nothing is (any more).

        Raises: PieError: why the request failed.
        """
        with self._lock:
            return self._state.take(request)

    def finish(self, request: int) -> Finish | None:
        """None until everything is handed out."""
        with self._lock:
            return self._state.finish(request)

    def usage(self, request: int) -> Usage:
        with self._lock:
            return self._state.usage(request)

    def cancel(self, request: int) -> None:
        """The context ends with what was handed out."""
        with self._lock:
            was_live = self._state.cancel(request)
        if was_live:
            self._wake.set()

    def drop_request(self, request: int) -> None:
        """Cancels it, unless everything is handed out, and forgets it."""
        with self._lock:
            was_live = self._state.drop_request(request)
            self._notify.pop(request, None)
        if was_live:
            self._wake.set()

    # Service

    def start(self) -> None:
        self._worker.listen(self._wake.set)
        self._teller.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the batch in flight, or in the middle of a restart; unfinished
        requests fail with `closed`."""
        self._stopping = True
        self._worker.stop()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._masks.close()
        self._fail(PieError("closed", f"the scheduler of {self.info.name} was stopped"))
        self._teller.stop()

    def check(self) -> None:
        """Proves that pages, contexts and requests agree. Raises: IntegrityError."""
        with self._lock:
            self._state.check()

    def stats(self) -> SchedulerStats:
        now_s = time.monotonic()
        with self._lock:
            return stats_of(
                self._state,
                model=self.info.name,
                adapters=self.adapters.num_loaded,
                adapter_bytes=self.adapters.num_bytes,
                last_batch_rows=len(self._last_batch.rows),
                last_batch_tokens=sum(len(row.tokens) for row in self._last_batch.rows),
                computed_tokens_per_s=self._computed.per_s(now_s),
                generated_tokens_per_s=self._generated.per_s(now_s),
                worker=self._worker.stats(),
                failure=None if self._failure is None else self._failure.message,
                integrity_error=self._integrity_error,
            )

    def _changed(self) -> None:
        """Only for those who wait: a program that is alone needs no thread to look at its call."""
        if self._state.waiting or self._state.running or self.adapters.is_awaited:
            self._wake.set()

    def _come(self, context: int) -> None:
        asked = self._state.contexts.get(context)
        num_tokens = max(1, asked.num_pending)
        if self._gathering.came(asked.owner.name, time.monotonic(), num_tokens):
            self._wake.set()

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise PieError(self._failure.code, self._failure.message)

    def _main(self) -> None:
        try:
            while self._take():
                try:
                    self._go_round()
                except BackendError as error:
                    self._recovery.after(error)
        except BackendError as error:
            if not self._stopping:
                _log.error("the backend of %s died: %s", self.info.name, error)
                self._fail(PieError("internal", f"the backend of {self.info.name} died: {error}"))
        except Exception as error:  # noqa: BLE001 - the thread's edge: programs must not hang
            _log.exception("the scheduler of %s failed", self.info.name)
            self._fail(PieError("internal", f"the scheduler of {self.info.name} failed: {error}"))

    def _go_round(self) -> None:
        """Raises: BackendError: it died."""
        # A round that ends early leaves something to do.
        self._idle = False
        if self._worker.is_to_be_replaced:
            self._recovery.replace()
            return
        backend = self._worker.use()
        self.adapters.work(backend)
        self._make_masks()
        batch = self._decide()
        if batch is not None:
            self._begun_s = time.monotonic()
            told = partial(self._deliver, goes_on=True)
            self._deliver(self._wake.compute(backend, batch, told))
        self._move_pages(backend)

    def _take(self) -> bool:
        """Waits while there is nothing to compute; False when it is time to stop."""
        if self._idle:
            if not self._wake.wait(IDLE_CHECK_S):
                self._check_idle()
                self._wake.wait()
            self._gathering.rested(time.monotonic())
        self._wake.clear()
        self._gather()
        return not self._stopping

    def _gather(self) -> None:
        while not self._stopping:
            with self._lock:
                num_here = len(self._state.running) + len(self._state.waiting)
                num_more = num_prompt_tokens(self._state.waiting.values())
                patience_s = self._gathering.patience_s(num_here, time.monotonic(), num_more)
            if not patience_s:
                return
            self._wake.wait(patience_s)
            self._wake.clear()

    def _check_idle(self) -> None:
        try:
            self.check()
        except IntegrityError as error:
            self._integrity_error = str(error)
            _log.error("the pages of %s do not add up: %s", self.info.name, error)

    def _make_masks(self) -> None:
        if not self._state.guided:
            return
        with self._lock:
            due = self._state.guides_due()
        self._masks.make(due)
        with self._lock:
            callbacks = [self._notify[request] for request in self._state.conclude()]
        self._teller.tell(callbacks)

    def _decide(self) -> Batch | None:
        with self._lock:
            batch = self._state.decide()
            self._idle = batch is None and not self._state.saving.jobs
            if batch is not None:
                self._last_batch = batch
            return batch

    def _deliver(self, result: BatchResult, *, goes_on: bool = False) -> None:
        now_s = time.monotonic()
        took_s, self._begun_s = now_s - self._begun_s, now_s
        rows = self._last_batch.rows
        num_tokens = sum(len(row.tokens) for row in rows)
        with self._lock:
            self._computed.add(num_tokens, now_s)
            delivery = self._state.complete(result, goes_on=goes_on)
            if num_tokens == len(rows):
                self._gathering.computed(took_s / max(1, len(result.tokens[0])))
            else:
                self._gathering.computed_prompts(took_s, num_tokens - len(rows))
            self._gathering.answered(delivery.ended, now_s, delivery.by_passes)
            self._generated.add(sum(delivery.tokens.values()), now_s)
            callbacks = [self._notify[request] for request in delivery.ready]
        self._account(delivery.tokens)
        self._teller.tell(callbacks)

    def _move_pages(self, backend: Backend) -> None:
        """One file's share between two batches."""
        with self._lock:
            batch, done = self._state.move_pages() if self._state.saving.jobs else (None, [])
        if batch is not None:
            result = backend.execute(batch)
            with self._lock:
                done += self._state.saving.jobs.land(result)
        for job in done:
            job.notify()

    def _account(self, tokens: Mapping[str, int]) -> None:
        if self._on_tokens is not None:
            for owner, num_tokens in tokens.items():
                self._on_tokens(owner, num_tokens)

    def _notify_all(self, requests: Iterable[int]) -> None:
        with self._lock:
            known = [self._notify.get(request) for request in requests]
        self._teller.tell(filter(None, known))

    def _fail(self, error: PieError) -> None:
        with self._lock:
            self._failure = self._failure or error
            failed = self._state.fail(error)
            jobs = self._state.saving.jobs.fail(error.message)
        self.adapters.fail(error)
        self._notify_all(failed)
        for job in jobs:
            job.notify()
