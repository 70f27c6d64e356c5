"""From JSON to `run` and back, errors included."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inferlet import InvalidArgument
from inferlet._entry import Failure, Program
from support.fake_pie import FakePie

ROOT = str(Path(__file__).parent) + "/"


def served(run: Callable[..., Any], input: str = "{}") -> Any:
    return json.loads(Program(run, ROOT, []).serve(input))


def failed(run: Callable[..., Any], input: str = "{}") -> dict[str, Any]:
    with pytest.raises(Failure) as caught:
        Program(run, ROOT, []).serve(input)
    described: dict[str, Any] = json.loads(str(caught.value))
    return described


@dataclass
class Point:
    x: int


def test_json_goes_in_and_comes_out() -> None:
    """`run` sees Python values and returns them, dataclasses included."""
    assert {"x": 3} == served(lambda input: Point(input["x"]), '{"x": 3}')
    assert "é\ud800" == served(lambda input: input, '"é\\ud800"')


def test_an_empty_input_is_an_empty_object_and_a_run_may_ignore_it() -> None:
    """`pie run hello` needs no input, and neither does `def run():`."""
    assert {} == served(lambda input: input, "")
    assert 1 == served(lambda: 1)


def test_input_that_is_no_json_is_the_callers_mistake() -> None:
    """It never reaches the program."""
    assert "invalid-argument" == failed(lambda input: input, "{")["code"]


def test_a_refusal_keeps_its_code_and_says_where(pie: FakePie) -> None:
    """The message is the author's own; the line stands beside it."""

    def run(input: Any) -> None:
        raise InvalidArgument("`a` must be b")

    described = failed(run)
    assert ("invalid-argument", "`a` must be b") == (described["code"], described["message"])
    assert described["at"].startswith("test_entry.py:")
    assert [] == pie.logged


def test_a_bug_names_the_authors_line_and_logs_the_traceback(pie: FakePie) -> None:
    """The user reads file and line; the log holds the rest, without the SDK's own frames."""

    def run(input: Any) -> float:
        return 1 / int(input["zero"])

    described = failed(run, '{"zero": 0}')
    assert "program-error" == described["code"]
    assert described["message"].startswith("ZeroDivisionError: division by zero (test_entry.py:")
    level, trace = pie.logged[0]
    assert "error" == level
    assert 'File "test_entry.py"' in trace
    assert "_entry.py" not in trace.replace("test_entry.py", "")


def test_a_result_that_is_no_json_is_the_programs_error() -> None:
    """It says what could not be written."""
    assert "a set is not JSON" in failed(lambda input: {1})["message"]


def test_every_run_draws_its_own_random_numbers() -> None:
    """The generator's state is part of the component, so it is seeded anew."""
    random.seed(0)
    state = random.getstate()
    drawn = []
    for _ in range(2):
        random.setstate(state)
        drawn.append(served(lambda input: random.random()))
    assert drawn[0] != drawn[1]
