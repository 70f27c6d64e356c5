"""32 programs of every kind, driven by one thread: what each of them gets, token by token."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

from pie_backend.batch import Adjustment, Sample, Sampling
from pie_backend.tokenizer import Tokenizer
from pie_daemon.errors import PieError
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.grammar.source import Source
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import PassSpec
from pie_daemon.scheduler.service import Scheduler
from support.guided import compiled

HANG_S = 120.0
NUM_PROGRAMS = 32
Program = Generator[int, None, list[Any]]
"""Yields the request that it waits for; returns what it got."""


class Load:
    """`run` starts all programs at once, and waits for them."""

    def __init__(self, scheduler: Scheduler, adapter: Path) -> None:
        self.scheduler = scheduler
        self.wake = threading.Event()
        self._adapter = adapter
        tokenizer = Tokenizer("crumb")
        limits = LimitsConfig()
        compiler = GrammarCompiler(tokenizer, scheduler.info, lambda: limits)
        self._number = compiled(compiler, Source("regex", "[0-9]{6,9}"))
        compiler.close()
        self._prompt = tokenizer.encode("Pie serves language models to programs: ", False)

    def run(self, owner: str = "p") -> list[list[Any]]:
        programs = [self._program(number, f"{owner}{number}") for number in range(NUM_PROGRAMS)]
        waits: dict[int, int] = {}
        outcomes: list[list[Any]] = [[] for _ in programs]
        live = set(range(NUM_PROGRAMS))
        while live:
            for number in sorted(live):
                if number in waits and not self.scheduler.ready(waits[number]):
                    continue
                try:
                    waits[number] = next(programs[number])
                except StopIteration as stop:
                    outcomes[number] = stop.value
                    self.scheduler.drop_owner(f"{owner}{number}")
                    live.remove(number)
            if live and not any(self.scheduler.ready(waits[number]) for number in live):
                assert self.wake.wait(HANG_S), "the programs hang"
                self.wake.clear()
        return outcomes

    def _program(self, number: int, owner: str) -> Program:
        kinds = [
            self._greedy,
            self._sampled,
            self._loop,
            self._forking,
            self._guessing,
            self._hiding,
            self._adapted,
            self._constrained,
        ]
        return kinds[number % len(kinds)](number, owner)

    def _context(self, number: int, owner: str) -> int:
        context = self.scheduler.create_context(owner)
        self.scheduler.append(context, [*self._prompt, 40 + number, 41 + number, 42])
        return context

    def _generate(self, context: int, params: GenerateParams) -> Program:
        request = self.scheduler.generate(context, params, self.wake.set)
        got: list[Any] = []
        while True:
            if not self.scheduler.ready(request):
                yield request
            try:
                chunk = self.scheduler.take(request)
            except PieError as error:
                return [*got, error.code, error.message]
            if chunk is None:
                break
            got += chunk.tokens
        finish, usage = self.scheduler.finish(request), self.scheduler.usage(request)
        return [*got, finish, usage.generated_tokens]

    def _greedy(self, number: int, owner: str) -> Program:
        params = GenerateParams(max_tokens=14, chunk_tokens=3, ignore_eos=True)
        return (yield from self._generate(self._context(number, owner), params))

    def _sampled(self, number: int, owner: str) -> Program:
        """With penalties, whose counts have to be right."""
        adjustment = Adjustment(presence_penalty=0.5, repetition_penalty=1.1)
        sampling = Sampling(temperature=0.9, seed=number, adjustment=adjustment, logprobs=0)
        params = GenerateParams(sampling, max_tokens=14, ignore_eos=True)
        return (yield from self._generate(self._context(number, owner), params))

    def _loop(self, number: int, owner: str) -> Program:
        """Forward passes, two of them submitted together."""
        context = self._context(number, owner)
        got: list[int] = []
        fork = self.scheduler.fork(context)
        for _ in range(6):
            tokens = got[-1:]
            specs = [
                PassSpec(one, tokens, questions=[Sample(0, Sampling())]) for one in (context, fork)
            ]
            for request in self.scheduler.submit(specs, self.wake.set):
                if not self.scheduler.ready(request):
                    yield request
                (token,) = self.scheduler.take_answers(request)
                self.scheduler.drop_request(request)
            assert isinstance(token, int)
            got.append(token)
        return got

    def _forking(self, number: int, owner: str) -> Program:
        """Of what is computed, within a page."""
        context = self._context(number, owner)
        request = self.scheduler.flush(context, self.wake.set)
        if request is not None:
            yield request
        fork = self.scheduler.fork(context)
        self.scheduler.append(fork, [50])
        params = GenerateParams(max_tokens=6, ignore_eos=True)
        first = yield from self._generate(fork, params)
        return [first, (yield from self._generate(context, params))]

    def _guessing(self, number: int, owner: str) -> Program:
        context = self._context(number, owner)
        self.scheduler.append(context, [60, 61, 62, 60, 61, 62, 60, 61])
        params = GenerateParams(max_tokens=14, drafts=DraftParams(4, 1, 3), ignore_eos=True)
        return (yield from self._generate(context, params))

    def _hiding(self, number: int, owner: str) -> Program:
        context = self._context(number, owner)
        params = GenerateParams(max_tokens=5, ignore_eos=True)
        first = yield from self._generate(context, params)
        self.scheduler.set_visible(context, 2, 7, False)
        self.scheduler.truncate(context, self.scheduler.length(context) - 2)
        self.scheduler.append(context, [43, 44])
        return [first, (yield from self._generate(context, params))]

    def _adapted(self, number: int, owner: str) -> Program:
        opening = self.scheduler.adapters.open(self._adapter, self.wake.set)
        while not opening.done:
            self.wake.wait(0.01)
        try:
            params = GenerateParams(max_tokens=8, adapter=opening.digest, ignore_eos=True)
            return (yield from self._generate(self._context(number, owner), params))
        finally:
            self.scheduler.adapters.close(opening)

    def _constrained(self, number: int, owner: str) -> Program:
        params = GenerateParams(max_tokens=14, matcher=self._number.fork())
        return (yield from self._generate(self._context(number, owner), params))
