"""The scheduler as a pure state machine: calls of programs in, batches and deliveries out.

    decide() -> Batch      the backend computes it      complete(BatchResult) -> deliveries

No thread, no I/O, no clock and no randomness of its own; one batch is in flight at a time. Calls
may come while it is: pages that they let go stay out of the pool until the batch has landed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pie_backend.batch import BackendInfo, Batch, BatchResult
from pie_daemon.errors import PieError
from pie_daemon.scheduler.admission import PromisePages
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.delivery import Counters, Delivery, Lost, answers, rest_of
from pie_daemon.scheduler.desk import PassDesk
from pie_daemon.scheduler.fairness import Fairness
from pie_daemon.scheduler.generation import Generation
from pie_daemon.scheduler.guide import Guide
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.limits import Limits
from pie_daemon.scheduler.making import GenerationMaker
from pie_daemon.scheduler.owners import Owner, OwnerTable, Shares
from pie_daemon.scheduler.page_jobs import PageJob
from pie_daemon.scheduler.pages import IntegrityError
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import Answer, PassSpec
from pie_daemon.scheduler.planning import Planner
from pie_daemon.scheduler.policy import DecodeFirst, EqualDrafts, FollowTheFirst, Unwatched
from pie_daemon.scheduler.pressure import Expectation, Preemption
from pie_daemon.scheduler.request import CANCELLED, COMPLETE, Chunk, Finish, Flush, Request, Usage
from pie_daemon.scheduler.rows import Rows
from pie_daemon.scheduler.saving import Saving
from pie_daemon.scheduler.suspects import Suspects, guilty


class SchedulerState:
    """All contexts and requests of one model."""

    _preemption = Preemption()
    _choice = DecodeFirst()

    def __init__(
        self,
        info: BackendInfo,
        config: SchedulerConfig,
        token_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
        follow: FollowTheFirst | None = None,
        expectation: Expectation | None = None,
    ) -> None:
        self.info = info
        self.limits = Limits(info, config.max_batch_tokens)
        self.owners = OwnerTable()
        self.contexts = ContextTable(
            info.num_pages,
            info.page_size,
            share_prefixes=config.share_prefixes,
            num_host_pages=info.num_host_pages,
        )
        self.saving = Saving(info, self.contexts, self.limits, self._num_reserved)
        self.waiting: dict[int, Request] = {}
        self.running: dict[int, Request] = {}
        self.counters = Counters()
        self._config = config
        self._maker = GenerationMaker(info, self.limits, token_bytes)
        self._clock = clock
        self._fairness = Fairness()
        self._rows = Rows(self.contexts, self.counters, self._fairness)
        self._expectation = expectation or Expectation()
        self._admission = PromisePages(self._expectation)
        self._follow = follow or FollowTheFirst()
        self._drafts = EqualDrafts(config.max_draft_tokens)
        self._requests: dict[int, Request] = {}
        self._last_request_id = 0
        self._admission_due = False  # something came or went since requests were last admitted
        self._passes = PassDesk(
            Planner(info, self.limits), self.limits, self.contexts, self._requests, self.waiting
        )
        self._in_flight: tuple[Batch, list[Request]] | None = None
        self._suspects = Suspects()
        self._moving: list[Request] = []  # running requests that the last batch carried
        self.guided: dict[int, Generation] = {}  # live, with a constraint

    def join(self, shares: Shares) -> None:
        """Before there is anybody: evenness between users and families, and page quotas, are those
        of all states that have joined."""
        self.owners.shares = shares
        self._fairness.clock = shares.clock

    # Contexts

    def create_context(self, owner_name: str) -> int:
        return self.contexts.create(self._owner(owner_name)).id

    def _owner(self, name: str) -> Owner:
        return self.owners.find(name) or self.owners.add(name)

    def append(self, context_id: int, tokens: Sequence[int]) -> None:
        context = self.contexts.get_idle(context_id)
        self.limits.check_tokens(tokens)
        length = len(context.journal)
        self.limits.check_length(max(length, context.layout.position(length)) + len(tokens))
        self.contexts.append(context, tokens)

    def open_journal(self, owner_name: str, journal: Journal) -> int:
        return self.saving.open(self._owner(owner_name), journal)

    def move_pages(self) -> tuple[Batch | None, list[PageJob]]:
        """Between batches; see `PageJobs.depart`."""
        assert self._in_flight is None, "one batch at a time"
        self._admission_due = True
        return self.saving.jobs.depart()

    def fork(self, context_id: int) -> int:
        return self.contexts.fork(self.contexts.get_idle(context_id)).id

    def truncate(self, context_id: int, length: int) -> None:
        context = self.contexts.get_idle(context_id)
        if not 0 <= length <= len(context.journal):
            raise PieError(
                "invalid-argument", f"length {length} is outside [0, {len(context.journal)}]"
            )
        self.contexts.truncate(context, length)
        self._admission_due = True

    def set_visible(self, context_id: int, start: int, end: int, visible: bool) -> None:
        """Hides or shows tokens [start, end); see `ContextTable.set_visible`."""
        context = self.contexts.get_idle(context_id)
        self.limits.check_range(start, end, len(context.journal))
        self.contexts.set_visible(context, start, end, visible)
        self._admission_due = True

    def set_priority(self, context_id: int, priority: int) -> None:
        """For requests that wait, and those to come."""
        self.contexts.get(context_id).priority = priority
        self._admission_due = True

    def length(self, context_id: int) -> int:
        return self.contexts.get(context_id).num_visible

    def tokens(self, context_id: int, start: int, end: int) -> list[int]:
        context = self.contexts.get(context_id)
        self.limits.check_range(start, end, context.num_visible)
        return context.journal[start:end]

    def drop_context(self, context_id: int) -> None:
        """Cancels the request that runs on it, and those behind it."""
        context = self.contexts.get(context_id)
        while context.request is not None:
            self._abort(context.request, CANCELLED)
        self.contexts.drop(context)
        self._admission_due = True

    # Requests

    def generate(self, context_id: int, params: GenerateParams) -> int:
        context = self.contexts.get_idle(context_id)
        generation = self._maker.generation(self._new_id(), context, params, self._clock())
        self._submit(generation)
        if generation.guide is not None and not generation.ended:
            self.guided[generation.id] = generation
        return generation.id

    def flush(self, context_id: int) -> int | None:
        """None: everything is computed already."""
        context = self.contexts.get_idle(context_id)
        if context.is_computed:
            return None
        flush = Flush(
            id=self._new_id(),
            context=context,
            submitted_at_s=self._clock(),
            prompt_tokens=len(context.journal),
            cached_tokens=context.num_computed,
        )
        self._submit(flush)
        return flush.id

    def submit(self, specs: Sequence[PassSpec]) -> list[int]:
        """Passes that are admitted together; each on the context as those before it leave it."""
        self._admission_due = True
        submitted = self._passes.submit(specs, self._clock(), self._new_id)
        for request_id in submitted:
            self._fairness.come(self._requests[request_id].context.owner)
        return submitted

    def take_answers(self, request_id: int) -> list[Answer]:
        return self._passes.take_answers(self._get(request_id))

    def ready(self, request_id: int) -> bool:
        return self._get(request_id).ready

    def take(self, request_id: int) -> Chunk | None:
        """What is ready, from then on handed out; None: nothing is (any more).

        Raises: PieError: why the request failed.
        """
        request = self._get(request_id)
        chunk = request.take()
        self._settle(request)
        return chunk

    def finish(self, request_id: int) -> Finish | None:
        """None until everything is handed out."""
        request = self._get(request_id)
        return request.finish if request.drained else None

    def usage(self, request_id: int) -> Usage:
        return self._get(request_id).usage(self._clock())

    def cancel(self, request_id: int) -> bool:
        """The context ends with what was handed out; what is drained already stays as it is.
        Whether it was not."""
        request = self._get(request_id)
        if request.drained:
            return False
        self._abort(request, CANCELLED)
        return True

    def drop_request(self, request_id: int) -> bool:
        was_live = self.cancel(request_id)
        request = self._requests.pop(request_id)
        request.context.owner.requests.discard(request_id)
        return was_live

    def drop_owner(self, owner_name: str) -> None:
        """Frees everything of an instance; one that never asked for anything is fine."""
        owner = self.owners.find(owner_name)
        if owner is None:
            return
        for request_id in list(owner.requests):
            self.drop_request(request_id)
        for context_id in list(owner.contexts):
            self.drop_context(context_id)
        self.owners.remove(owner)

    # Masks

    def guides_due(self) -> list[Guide]:
        """Whose masks have to be made before their generations can go on."""
        return [one.guide for one in self.guided.values() if one.guide and one.guide.is_due]

    def conclude(self) -> list[int]:
        """Ends the generations whose constraints turned out to have ended or failed; which."""
        ended = [one for one in self.guided.values() if one.guide and one.guide.is_done]
        for generation in ended:
            assert generation.guide is not None
            if generation.guide.error is None:
                generation.end(COMPLETE)
                self._retire(generation)
            else:
                self._abort(generation, None)
                generation.error = generation.guide.error
        return [generation.id for generation in ended]

    # Batches

    def decide(self) -> Batch | None:
        """The next batch; None: there is nothing to compute until a call changes that."""
        assert self._in_flight is None, "one batch at a time"
        self._preempt()
        self._admit()
        most = self._config.max_batch_tokens
        chosen = self._choice.choose(self._suspects.choose(self.running.values()), most)
        if not chosen:
            return None
        copies = self.contexts.take_copies()
        room = self._drafts.share([len(run.tokens) for _, run in chosen], most)
        alone = not self.waiting and not self.saving.jobs and len(chosen) == len(self.running)
        burst = Unwatched(self._config.max_burst).burst(chosen if alone else [], self.contexts)
        rows = self._rows.cut(chosen, room, copies, burst.passes - 1)
        self.contexts.depart()
        self.counters.count_cut(rows)
        moves = self.contexts.host.depart()
        batch = Batch(self.counters.steps, rows, copies, *moves, **burst._asdict())
        self._in_flight = batch, [request for request, _ in chosen]
        return batch

    def complete(self, result: BatchResult, *, goes_on: bool = False) -> Delivery:
        """Takes in what the batch in flight made; `goes_on`: a pass of a burst, not its last.

        Raises: BackendError: it is no answer to the batch, which is still in flight then.
        """
        assert self._in_flight is not None, "no batch is in flight"
        batch, flight = self._in_flight
        answered = answers(result, batch)
        if goes_on:
            self._in_flight = rest_of(batch), flight
        else:
            self._land()
        self._suspects.landed(flight)
        delivery = Delivery()
        self._moving.clear()
        self.counters.count_made(result, batch, goes_on)
        take_in = self._rows.take_in_told if goes_on else self._rows.take_in
        for request, (tokens, ones, probed) in zip(flight, answered, strict=True):
            if request.id in self.running:
                self._moving.append(request)
                if probed:
                    request.observe(probed)
                self._advance(request, take_in(request, tokens, ones), delivery)
        self.counters.generated_tokens += sum(delivery.tokens.values())
        return delivery

    def lose_backend(self, info: BackendInfo, cause: str) -> Lost:
        """The backend is gone with every page; the next one is as `info` says, or will be.

        All contexts fall to their journals. Requests wait until theirs is computed again, and what
        was in flight is as if it had never left; those fail that cannot have room any more, and the
        one that killed the backend.
        """
        flight = () if self._in_flight is None else self._in_flight[1]
        batch = [one for one in flight if one.id in self.running]
        culprit = self._suspects.died(batch)
        self._in_flight = None
        self._moving.clear()
        self.info = self.limits.info = info
        jobs = self.saving.jobs.lose(info, cause)
        self.contexts.lose_pages(info.num_pages, info.num_host_pages)
        for request in list(self.running.values()):
            request.forget_row()
            self._requeue(request)
        self._admission_due = True
        failures = self._maker.refit(self._live())
        if culprit is not None:
            failures[culprit] = guilty(cause)
        return Lost(self._fail(failures), jobs, culprit is not None)

    def lose_adapters(self, reasons: Mapping[str, PieError]) -> list[int]:
        """They cannot be had any more: fails the requests that need one; returns them."""
        return self._fail(
            {
                request: reasons[adapter]
                for request in self._live()
                for adapter in (*request.context.adapters.used, request.adapter)
                if adapter is not None and adapter in reasons
            }
        )

    def fail(self, error: PieError) -> list[int]:
        """The backend is gone for good: ends every unfinished request with that error; returns
        them."""
        if self._in_flight is not None:
            self._land()
        return self._fail(dict.fromkeys(self._live(), error))

    def _fail(self, failures: Mapping[Request, PieError]) -> list[int]:
        for request, error in failures.items():
            self._abort(request, None)
            request.error = error
        return [request.id for request in failures]

    def _live(self) -> list[Request]:
        return [request for request in self._requests.values() if not request.ended]

    def check(self) -> None:
        """Proves that pages, contexts and reservations agree.

        Raises: IntegrityError: naming the first contradiction.
        """
        self.contexts.check(self.saving.jobs.held)
        if self._num_reserved() > self.contexts.pool.num_free:
            raise IntegrityError("more pages are reserved than free")
        live = {request.id for request in self._live()}
        if live != self.waiting.keys() | self.running.keys() | self._passes.parked:
            raise IntegrityError("the queues are not the live requests")

    def _num_reserved(self) -> int:
        return sum(request.num_reserved for request in self._requests.values())

    def _get(self, request_id: int) -> Request:
        request = self._requests.get(request_id)
        if request is None:
            raise PieError("not-found", f"there is no request {request_id}")
        return request

    def _submit(self, request: Request) -> None:
        context = request.context
        if not request.ended:
            self.limits.check_fits(request)
            self.limits.check_quota(request, self.contexts)
            if request.needs_logits and context.is_computed:
                # Compute the last token once more.
                self.contexts.rewind(context, len(context.journal) - 1)
            self.contexts.compute_with(context, request.adapter)
            self.contexts.want(context)
            context.num_open = 0
            self.waiting[request.id] = request
            self._fairness.come(context.owner)
            self._admission_due = True
        self._requests[request.id] = request
        context.request = request
        context.owner.requests.add(request.id)
        context.owner.prompt_tokens += request.prompt_tokens
        context.owner.cached_tokens += request.cached_tokens
        self._settle(request)

    def _new_id(self) -> int:
        self._last_request_id += 1
        return self._last_request_id

    def _waits(self, request: Request) -> bool:
        return request.id in self.waiting or request.id in self._passes.parked

    def _settle(self, request: Request) -> None:
        if request.drained and request.context.request is request:
            request.context.request = None

    def _retire(self, request: Request) -> None:
        was_running = self.running.pop(request.id, None) is not None
        if was_running or self._waits(request):
            self._fairness.leave(request.context.owner, was_waiting=not was_running)
        self.waiting.pop(request.id, None)
        self.guided.pop(request.id, None)
        self._suspects.leave(request)
        reserved, request.num_reserved = request.num_reserved, 0
        request.stride = None
        self.contexts.touch(request.context)
        self._admission_due = True
        self._settle(request)
        following = self._passes.leave(request, reserved)
        if following is not None:
            self._start(following)

    def _abort(self, request: Request, finish: Finish | None) -> None:
        context = request.context
        visible = context.num_visible
        request.forget_hidden()
        request.finish = finish
        if visible < len(context.journal):
            self.contexts.truncate(context, visible)
        else:
            self.contexts.rewind(context, visible)  # drafts only
        self._retire(request)
        if context.request is request:
            context.request = None

    def _preempt(self) -> None:
        for request in self._preemption.secure(self.running.values(), self.contexts):
            self._requeue(request)
            self.counters.preemptions += 1

    def _requeue(self, request: Request) -> None:
        del self.running[request.id]
        self.waiting[request.id] = request
        request.num_reserved, request.overdrawn, request.stride = 0, False, None
        self._fairness.requeue(request.context.owner)
        self._admission_due = True

    def _admit(self) -> None:
        if not self._admission_due:
            return
        moving = [request for request in self._moving if request.id in self.running]
        followers = self._follow.round(moving, self.contexts)
        admitted = self._admission.admit(
            self._suspects.first(self.waiting.values()),
            self.running.values(),
            self.contexts,
            followers,
            min(self._config.max_batch_rows, self._config.max_batch_tokens),
        )
        self._admission_due = admitted.try_again
        for request in admitted.requests:
            self._start(request)

    def _start(self, request: Request) -> None:
        self.waiting.pop(request.id, None)
        self._passes.start(request)
        self.running[request.id] = request
        self._fairness.admit(request.context.owner)
        if request.admitted_at_s is None:
            request.admitted_at_s = self._clock()
            self.counters.count_found(request)

    def _land(self) -> tuple[Batch, list[Request]]:
        assert self._in_flight is not None, "no batch is in flight"
        flight, self._in_flight = self._in_flight, None
        self.contexts.land()
        return flight

    def _advance(self, request: Request, num_new: int, delivery: Delivery) -> None:
        owner = request.context.owner
        if num_new:
            owner.generated_tokens += num_new
            delivery.tokens[owner.name] += num_new
        if request.ended:
            delivery.ended[owner.name] += 1
            if not isinstance(request, Generation):
                delivery.by_passes.add(owner.name)
            if request.num_drawn and not request.is_exact:
                self._expectation.learn(request.num_drawn)
            self._retire(request)
        if request.ready:
            delivery.add(request, num_new)
