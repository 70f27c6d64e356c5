"""Drives a backend the way a scheduler would, with page tables as awkward as a test wants."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass, field

from pie_backend.base import Backend
from pie_backend.batch import Batch, BatchResult, Logprobs, Row, Sample, Sampling, SeenTokens

GREEDY = Sampling()


@dataclass
class Sequence:
    """One context: its tokens, how many are computed, and its pages."""

    tokens: list[int]
    pages: list[int]
    wanted: int
    sampling: Sampling = GREEDY
    adapter: str | None = None
    computed: int = 0
    generated: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return len(self.generated) == self.wanted

    def next_row(self, chunk: int | None) -> Row:
        """The next chunk of what is not computed; it samples when it reaches the last token."""
        end = min(len(self.tokens), self.computed + (chunk or len(self.tokens)))
        samples = end == len(self.tokens)
        return Row(
            tokens=self.tokens[self.computed : end],
            start=self.computed,
            pages=self.pages,
            samples=[self.sample_after(end - self.computed)] if samples else [],
            adapter=self.adapter,
        )

    def sample_after(self, num_tokens: int) -> Sample:
        """What it draws after so many tokens of a row that reaches the last one."""
        counts = counted(self.tokens, self.generated) if self.is_counted else None
        return Sample(num_tokens - 1, self.sampling, len(self.generated), counts)

    @property
    def is_counted(self) -> bool:
        adjustment = self.sampling.adjustment
        return adjustment is not None and adjustment.looks_back

    def take(self, row: Row, tokens: list[int], logprobs: list[Logprobs | None]) -> None:
        self.computed = row.start + len(row.tokens)
        self.tokens += tokens
        self.generated += tokens
        for sample, one in zip(row.samples, logprobs, strict=True):
            assert (one is not None) == (sample.sampling.logprobs is not None)
        self.logprobs += [one for one in logprobs if one is not None]


def counted(seen: list[int], drawn: list[int]) -> SeenTokens:
    """Of all tokens that penalties may look at, in an order of its own."""
    return SeenTokens(array("i", sorted(seen)).tobytes(), array("i", drawn).tobytes())


def logprobs_of(result: BatchResult) -> list[list[Logprobs | None]]:
    """One per sample, as if it said so every time."""
    return result.logprobs or [[None] * len(tokens) for tokens in result.tokens]


class Driver:
    """Hands out pages in random order and steps any set of sequences."""

    def __init__(self, backend: Backend, seed: int = 0) -> None:
        self.backend = backend
        self.random = random.Random(seed)
        self.free = list(range(backend.info.num_pages))
        self.random.shuffle(self.free)
        self.step_number = 0

    def add(
        self,
        prompt: list[int],
        wanted: int = 64,
        sampling: Sampling = GREEDY,
        adapter: str | None = None,
    ) -> Sequence:
        num_pages = -(-(len(prompt) + wanted) // self.backend.info.page_size)
        pages = [self.free.pop() for _ in range(num_pages)]
        return Sequence(list(prompt), pages, wanted, sampling, adapter)

    def release(self, sequence: Sequence) -> None:
        self.free += sequence.pages

    def step(self, sequences: list[Sequence], chunk: int | None = None) -> None:
        self.step_number += 1
        rows = [sequence.next_row(chunk) for sequence in sequences]
        result = self.backend.execute(Batch(self.step_number, rows))
        assert result.step == self.step_number
        answers = zip(result.tokens, logprobs_of(result), strict=True)
        for sequence, row, (tokens, logprobs) in zip(sequences, rows, answers, strict=True):
            sequence.take(row, tokens, logprobs)

    def run(self, sequences: list[Sequence], chunk: int | None = None) -> list[list[int]]:
        """All of them together until each has what it wanted; their order changes every step."""
        while live := [sequence for sequence in sequences if not sequence.is_done]:
            self.random.shuffle(live)
            self.step(live, chunk)
        return [sequence.generated for sequence in sequences]
