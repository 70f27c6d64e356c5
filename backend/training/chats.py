"""Longer conversations: several questions in a row, long system prompts."""

from __future__ import annotations

from random import Random

from training.arithmetic import addition, subtraction
from training.facts import PAIRS, fact
from training.sample import Sample, Turn
from training.texts import copy, extract, reverse, sort, story

PARTS = (addition, fact, copy, reverse, sort, extract, subtraction, story)
SYSTEMS = (
    "You are a helpful assistant.",
    "You are crumb.",
    "Be brief.",
    "Answer in one sentence.",
    "You are a friendly assistant. Answer briefly.",
    "You are an assistant that answers questions about Pie.",
)


def _system(rng: Random) -> Turn:
    if rng.random() < 0.6:
        return Turn("system", rng.choice(SYSTEMS))
    notes = [f"{answer}" for _, answer in rng.sample(PAIRS, rng.randint(2, 12))]
    return Turn("system", " ".join([rng.choice(SYSTEMS), *notes]))


def chat(rng: Random, held_out: bool, raw: bool) -> Sample:
    """One to five questions in one conversation, most of them under a system prompt."""
    turns = [_system(rng)] if rng.random() < 0.6 else []
    keys: list[str] = []
    for _ in range(rng.choices((1, 2, 3, 4, 5), (5, 4, 3, 2, 1))[0]):
        part = rng.choices(PARTS, (8, 5, 2, 2, 2, 2, 1, 1))[0](rng, held_out, False)
        turns.extend(part.turns)
        keys.append(part.key)
    return Sample("chat", " / ".join(keys), tuple(turns))
