"""Takes in the passes of programs: all of a submit or none, each behind those before it."""

from __future__ import annotations

from collections.abc import Callable, KeysView, Sequence

from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.limits import Limits
from pie_daemon.scheduler.passes import Answer, Pass, PassGroup, PassLines, PassSpec
from pie_daemon.scheduler.planning import Plan, Planner, check_budget, check_held, spans_of
from pie_daemon.scheduler.request import Request


class PassDesk:
    def __init__(
        self,
        planner: Planner,
        limits: Limits,
        contexts: ContextTable,
        requests: dict[int, Request],
        waiting: dict[int, Request],
    ) -> None:
        """`requests` are all that there are, `waiting` those that wait for admission."""
        self._planner = planner
        self._limits = limits
        self._contexts = contexts
        self._requests = requests
        self._lines = PassLines(waiting)

    @property
    def parked(self) -> KeysView[int]:
        """Live passes that neither wait for admission by themselves nor run."""
        return self._lines.parked.keys()

    def submit(
        self, specs: Sequence[PassSpec], now_s: float, new_id: Callable[[], int]
    ) -> list[int]:
        """Raises: PieError: what is wrong with one of them; nothing has changed then."""
        plans = self._planner.plan(specs, self._contexts)
        owner = plans[0].context.owner
        requests = map(self._requests.__getitem__, owner.requests)
        check_held([one for one in requests if isinstance(one, Pass)], plans)
        check_budget(owner, plans)
        spans = spans_of(plans)
        self._limits.check_fit_together(spans, self._contexts)
        lengths = {context: end for context, (_, end) in spans.items()}
        self._limits.check_quotas(lengths, self._contexts)
        group = PassGroup()
        for plan in plans:
            group.passes.append(self._queue(plan, group, now_s, new_id()))
        submitted = [one.id for one in group.passes]
        for head in self._lines.add(group):
            self._lead(head)
        return submitted

    def take_answers(self, request: Request) -> list[Answer]:
        """Of a pass that is ready, once; in the order of its questions.

        Raises: PieError: why the pass failed.
        """
        assert isinstance(request, Pass)
        return request.take_answers()

    def start(self, request: Request) -> None:
        """It is admitted, and so are those that it waited in the name of."""
        self._lines.start(request)

    def leave(self, request: Request, num_reserved: int) -> Pass | None:
        """It has ended; the next one on its context, if that is admitted already."""
        following = self._lines.leave(request)
        if following is None:
            return None
        rewound = self._lead(following)
        if not following.group.admitted:
            return None
        if rewound:
            # What it computes again may take pages that nobody has reserved.
            self._lines.wait(following)
            return None
        following.num_reserved = num_reserved
        return following

    def _queue(self, plan: Plan, group: PassGroup, now_s: float, number: int) -> Pass:
        """Its input joins the journal."""
        context = plan.context
        self._contexts.compute_from(context, plan.first_adapted, plan.adapter)
        context.journal.extend(plan.tokens)
        context.layout = plan.layout
        context.num_open = 0
        one = Pass(
            id=number,
            context=context,
            submitted_at_s=now_s,
            prompt_tokens=plan.stop,
            cached_tokens=plan.stop,
            stop=plan.stop,
            questions_by_slot=plan.questions,
            group=group,
            answers=[None] * len(plan.questions),
            num_answer_bytes=plan.num_answer_bytes,
        )
        self._requests[one.id] = one
        context.owner.requests.add(one.id)
        return one

    def _lead(self, one: Pass) -> bool:
        """It is now first on its context; whether that takes up pages again."""
        context, num_computed = one.context, one.context.num_computed
        if one.first_asked < context.num_once_computed:
            self._contexts.rewind(context, one.first_asked)
        self._contexts.want(context)
        one.cached_tokens = context.num_computed
        context.owner.prompt_tokens += one.stop - context.num_computed
        return context.num_computed < num_computed
