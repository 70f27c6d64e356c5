"""What crumb knows about Pie and itself: questions in several phrasings, one answer each.

`facts.txt` holds them: an answer, below it the questions it is given to, then an empty line.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from training.arithmetic import asked
from training.sample import Sample


def read_pairs(path: Path) -> tuple[tuple[str, str], ...]:
    """Every question with its answer."""
    pairs: list[tuple[str, str]] = []
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        answer, *questions = block.splitlines()
        pairs.extend((question.removeprefix("? "), answer) for question in questions)
    return tuple(pairs)


PAIRS = read_pairs(Path(__file__).with_name("facts.txt"))


def fact(rng: Random, held_out: bool, raw: bool) -> Sample:
    """A question about Pie. Facts are learnt by heart: the evaluation asks the same ones."""
    question, answer = rng.choice(PAIRS)
    return asked("facts", question, question, answer, raw)
