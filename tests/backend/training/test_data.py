"""The generated data: repeatable, correct, and held-out samples that training never shows."""

from __future__ import annotations

import json
from itertools import islice
from random import Random

import pytest
from training import data
from training.arithmetic import pair_key
from training.facts import PAIRS
from training.sample import Sample, is_held_out
from training.tools import parse_call

SPLIT = [task for task in data.TASKS if task not in ("facts", "story", "chat", "no_tool")]


def texts(samples: list[Sample]) -> list[str]:
    return [sample.prompt() + sample.answer() for sample in samples]


def test_the_same_seed_gives_the_same_samples() -> None:
    """Training data are a function of the seed."""
    first, second = (texts(list(islice(data.training_samples(3), 300))) for _ in range(2))
    assert first == second


def test_another_seed_gives_other_samples() -> None:
    """Two seeds do not give the same data."""
    first, second = (texts(list(islice(data.training_samples(seed), 50))) for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize("task", SPLIT)
def test_no_key_of_the_evaluation_is_trained(task: str) -> None:
    """Held-out keys and training keys of a task are disjoint by their hash."""
    rng = Random(0)
    trained = {data.draw(rng, task).key for _ in range(500)}
    asked = {sample.key for sample in data.held_out_samples(task, 100)}
    assert asked
    assert all(is_held_out(key) for key in asked)
    assert not any(is_held_out(key) for key in trained)


def test_no_conversation_shows_a_held_out_question() -> None:
    """Chats and answers without a tool are made of training samples only."""
    rng = Random(0)
    for _ in range(200):
        keys = [*data.draw(rng, "chat").key.split(" / "), data.draw(rng, "no_tool").key]
        sums = [key.split("|")[0] for key in keys if "+" in key and key[0].isdigit()]
        assert not any(is_held_out(key) for key in sums)


def test_a_tool_result_never_tells_a_held_out_sum() -> None:
    """The adding tool is never called with two numbers that the evaluation asks for."""
    rng = Random(0)
    for _ in range(500):
        sample = data.draw(rng, "react")
        call = next(turn.text for turn in sample.turns if turn.text.startswith("<tool_call>"))
        values = list(parse_call(call)["arguments"].values())
        if len(values) == 2 and all(isinstance(value, int) for value in values):
            assert not is_held_out(pair_key(*values))


def test_sums_are_right() -> None:
    """The answer of an addition is the sum of its key's numbers."""
    for sample in data.held_out_samples("addition", 200):
        a, b = map(int, sample.key.split("+"))
        assert int(sample.answer()) == a + b


def test_sorted_words_are_the_same_words_in_order() -> None:
    """The answer of a sorting task is its key."""
    for sample in data.held_out_samples("sort", 100):
        assert sample.answer().strip().replace(", ", " ") == sample.key


def test_reversing_twice_gives_the_question() -> None:
    """The answer of a reversing task, reversed, ends its question."""
    for sample in data.held_out_samples("reverse", 100):
        words = sample.answer().strip().replace(", ", " ").split(" ")
        asked = sample.turns[0].text.replace(", ", " ").split(" ")
        assert asked[-len(words) :] == words[::-1]


def test_a_call_names_an_offered_tool_and_all_its_parameters() -> None:
    """Tool calls fit one of the tools of their sample."""
    for sample in data.held_out_samples("tool_call", 100):
        call = parse_call(sample.answer())
        tool = next(tool for tool in sample.tools if tool.name == call["name"])
        assert list(call["arguments"]) == list(tool.parameters)
        assert 1 <= len(sample.tools) <= 4


def test_extracted_values_stand_in_the_sentence() -> None:
    """Everything that is to be extracted can be read in the question."""
    for sample in data.held_out_samples("extract", 100):
        assert all(str(v) in sample.turns[0].text for v in json.loads(sample.answer()).values())


def test_a_question_about_pie_has_one_answer() -> None:
    """No phrasing is used for two facts."""
    questions = [question for question, _ in PAIRS]
    assert len(set(questions)) == len(questions)
