"""Reasoning that branches: the client's side. Every branch is a request with the whole prompt."""

from __future__ import annotations

import asyncio

from benchmarks.questions.programs.workload import Served, Words, Work


class Tree:
    name = "tree"
    label = "Tree of thought, 3 levels"

    def work(self, words: Words) -> Work:
        return {
            "question": words.shared(256) + words.new(64),
            "hints": [words.shared(4) for _ in range(3)],
            "judge": words.shared(8),
            "depth": 3,
            "kept": 2,
            "lengths": {"thought": 16, "verdict": 4, "answer": 32},
        }

    async def client(self, served: Served, work: Work) -> int:
        best = [work["question"]]
        lengths, num_tokens = work["lengths"], 0
        for _ in range(work["depth"]):
            starts = [thought + hint for thought in best for hint in work["hints"]]
            judged = await asyncio.gather(*(_judged(served, work, start) for start in starts))
            num_tokens += len(judged) * (lengths["thought"] + lengths["verdict"])
            # Of equal scores the first wins, as in the program.
            order = sorted(judged, key=lambda one: -one[0])
            best = [branch for _, branch in order[: work["kept"]]]
        return num_tokens + len(await served.complete(best[0], lengths["answer"]))


async def _judged(served: Served, work: Work, start: list[int]) -> tuple[int, list[int]]:
    """Judged as soon as it is thought, whatever the others do."""
    branch = start + await served.complete(start, work["lengths"]["thought"])
    verdict = await served.complete(branch + work["judge"], work["lengths"]["verdict"])
    return sum(verdict), branch


class Graph:
    name = "graph"
    label = "Graph of thought, 8 parts"

    def work(self, words: Words) -> Work:
        return {
            "base": words.shared(128),
            "parts": [words.new(64) for _ in range(8)],
            "thought": 24,
        }

    async def client(self, served: Served, work: Work) -> int:
        """Two thoughts are merged as soon as both are there."""
        await _merged(served, work, work["parts"])
        return int((2 * len(work["parts"]) - 1) * work["thought"])


async def _merged(served: Served, work: Work, parts: list[list[int]]) -> list[int]:
    if len(parts) == 1:
        return await served.complete(work["base"] + parts[0], work["thought"])
    middle = len(parts) // 2
    one, other = await asyncio.gather(
        _merged(served, work, parts[:middle]), _merged(served, work, parts[middle:])
    )
    return await served.complete(work["base"] + one + other, work["thought"])


class Skeleton:
    name = "skeleton"
    label = "Skeleton of thought, 8 points"

    def work(self, words: Words) -> Work:
        return {
            "question": words.shared(192) + words.new(64),
            "points": [words.shared(8) for _ in range(8)],
            "outline": 32,
            "expanded": 32,
        }

    async def client(self, served: Served, work: Work) -> int:
        question = work["question"]
        trunk = question + await served.complete(question, work["outline"])
        expanded = await asyncio.gather(
            *(served.complete(trunk + point, work["expanded"]) for point in work["points"])
        )
        return int(work["outline"] + sum(map(len, expanded)))
