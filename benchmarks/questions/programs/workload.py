"""What is compared: one piece of work, done by a program in Pie and by a client of vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from benchmarks.model import SMALL
from benchmarks.text_model import following

Work = dict[str, Any]
"""What one agent is given: the program's input, and the client's."""


@dataclass(frozen=True, slots=True)
class Words:
    """Random tokens. Agents of one run have `common` ones and ones of their own; no cache has seen
    either."""

    common: Random
    own: Random
    tool: str = ""
    """The URL of the tool server."""

    def shared(self, num_tokens: int) -> list[int]:
        return _tokens(self.common, num_tokens)

    def new(self, num_tokens: int) -> list[int]:
        return _tokens(self.own, num_tokens)

    def answer(self, num_tokens: int) -> tuple[int, list[int]]:
        """A token and what the copying model draws after it, without coming back to any of them."""
        while True:
            path = [self.own.randrange(SMALL.vocab)]
            while len(path) <= num_tokens:
                path.append(following()[path[-1]])
            if len(set(path)) == len(path):
                return path[0], path[1:]


def _tokens(source: Random, num_tokens: int) -> list[int]:
    return [source.randrange(SMALL.vocab) for _ in range(num_tokens)]


class Served(Protocol):
    """What a client has: a model behind HTTP, and tools."""

    async def complete(self, prompt: list[int], max_tokens: int, **more: Any) -> list[int]:
        """Greedily, on after the end token; `more` are vLLM's own parameters."""
        ...

    async def get(self, url: str) -> list[int]:
        """What a tool answers."""
        ...

    def encode(self, text: str) -> list[int]: ...


class Workload(Protocol):
    name: str
    """Of the program, in benchmarks/inferlets/programs."""
    label: str

    def work(self, words: Words) -> Work: ...

    async def client(self, served: Served, work: Work) -> int:
        """Does the same as the program; how many tokens it had drawn."""
        ...
