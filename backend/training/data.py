"""The mixture of tasks. `python -m training.data` prints a few samples of each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from random import Random

from training.arithmetic import addition, subtraction
from training.chats import chat
from training.facts import fact
from training.sample import Sample
from training.texts import copy, extract, extract_order, reverse, sort, story
from training.tools import no_tool, react, tool_call

Task = Callable[[Random, bool, bool], Sample]

TASKS: dict[str, Task] = {
    "addition": addition,
    "subtraction": subtraction,
    "copy": copy,
    "reverse": reverse,
    "sort": sort,
    "extract": extract,
    "extract_order": extract_order,
    "tool_call": tool_call,
    "react": react,
    "no_tool": no_tool,
    "facts": fact,
    "story": story,
    "chat": chat,
}
# Samples of each task in a thousand, set by how slowly each is learnt.
WEIGHTS = {
    "addition": 160,
    "subtraction": 10,
    "copy": 100,
    "reverse": 160,
    "sort": 420,
    "extract": 10,
    "extract_order": 5,
    "tool_call": 70,
    "react": 20,
    "no_tool": 5,
    "facts": 30,
    "story": 2,
    "chat": 8,
}
RAW_SHARE = 0.25


def draw(rng: Random, task: str, held_out: bool = False) -> Sample:
    return TASKS[task](rng, held_out, rng.random() < RAW_SHARE)


def training_samples(seed: int) -> Iterator[Sample]:
    """Endless and the same for the same seed; holds no sample of the evaluation."""
    rng = Random(seed)
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        yield draw(rng, rng.choices(names, weights)[0])


def held_out_samples(task: str, count: int, seed: int = 1) -> list[Sample]:
    """`count` samples of one task that training never sees."""
    rng = Random(f"{task}/{seed}")
    return [draw(rng, task, held_out=True) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2, help="samples of each task")
    arguments = parser.parse_args()
    rng = Random(arguments.seed)
    for task in TASKS:
        for _ in range(arguments.count):
            sample = draw(rng, task)
            print(f"--- {task}\n{sample.prompt()}[[{sample.answer()}]]")


if __name__ == "__main__":
    main()
