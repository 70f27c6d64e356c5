"""What contenders are given to do, and what they say about how they did it."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Load(msgspec.Struct, frozen=True):
    """Greedy continuations of a fixed length; end tokens do not end them."""

    prompts: list[list[int]]
    new_tokens: int
    arrivals_s: list[float] = []
    """When each prompt comes, ascending; empty: all at once."""

    @property
    def num_tokens(self) -> int:
        return len(self.prompts) * self.new_tokens


class Timing(msgspec.Struct, frozen=True):
    """Seconds since the first prompt could come."""

    seconds: float
    """When the last token was there."""
    num_tokens: list[int]
    """Drawn for each prompt."""
    first_s: list[float] = []
    """When each prompt's first token was there; empty where the contender does not say."""
    last_s: list[float] = []

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s"

    def tokens_per_s(self, load: Load) -> float:
        """Checks that the work was done first."""
        assert self.num_tokens == [load.new_tokens] * len(load.prompts), self.num_tokens
        return load.num_tokens / self.seconds


class Contender(Protocol):
    def run(self, load: Load) -> Timing: ...

    def close(self) -> None: ...
