"""Makes generations of what programs ask for, with all that their draws depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pie_backend.batch import BackendInfo
from pie_daemon.errors import PieError
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.draws import Draws
from pie_daemon.scheduler.generation import Generation
from pie_daemon.scheduler.guide import guide_for
from pie_daemon.scheduler.limits import Limits
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import BUDGET, COMPLETE, LENGTH, Request
from pie_daemon.scheduler.speculation import speculation_for
from pie_daemon.scheduler.text import TextStream


class GenerationMaker:
    def __init__(
        self, info: BackendInfo, limits: Limits, token_bytes: Callable[[int], bytes]
    ) -> None:
        self._eos_tokens = info.eos_tokens
        self._limits = limits
        self._token_bytes = token_bytes

    def generation(
        self, number: int, context: Context, params: GenerateParams, now_s: float
    ) -> Generation:
        """It has ended already when there is nothing to draw.

        Raises: PieError: what is wrong with the parameters, or with the context for it.
        """
        self._check(context, params)
        length = len(context.journal)
        position = context.layout.position(length)
        eos = () if params.ignore_eos else self._eos_tokens
        adjustment = params.sampling.adjustment
        generation = Generation(
            id=number,
            context=context,
            submitted_at_s=now_s,
            prompt_tokens=length,
            cached_tokens=min(context.num_computed, length - 1),
            params=params,
            max_new=self._limits.max_new(length, params.max_tokens, position),
            stops=frozenset((*eos, *params.stop_tokens)),
            token_bytes=self._token_bytes,
            stream=TextStream(params.stop_strings),
            draws=Draws(params.sampling, context.journal),
            speculation=speculation_for(params.drafts),
            guide=guide_for(
                params.matcher, adjustment, self._eos_tokens if params.ignore_eos else ()
            ),
        )
        _end_at_once(generation)
        return generation

    def refit(self, requests: Iterable[Request]) -> dict[Request, PieError]:
        """To the pool of another backend; those that cannot be served by it, and why."""
        failures: dict[Request, PieError] = {}
        for request in requests:
            if isinstance(request, Generation):
                self._shorten(request)
            try:
                self._limits.check_fits(request)
            except PieError as error:
                failures[request] = error
        return failures

    def _shorten(self, generation: Generation) -> None:
        """One that was to make what there is room for makes less in a smaller pool."""
        if generation.params.max_tokens is None:
            length = generation.prompt_tokens
            position = generation.context.layout.position(length)
            room = self._limits.max_new(length, None, position)
            # At least one more, for which the pool may turn out to be too small.
            room = max(room, len(generation.tokens) + 1)
            generation.max_new = min(generation.max_new, room)

    def _check(self, context: Context, params: GenerateParams) -> None:
        params.check()
        self._limits.check_tokens(params.stop_tokens)
        self._limits.check_biases(params.sampling.adjustment)
        self._limits.check_has_visible(context)


def _end_at_once(generation: Generation) -> None:
    if generation.max_new <= 0:
        generation.end(LENGTH)
    elif generation.guide is not None and generation.guide.is_over:
        generation.end(COMPLETE)
    elif generation.context.owner.budget.left() == 0:
        generation.end(BUDGET)
