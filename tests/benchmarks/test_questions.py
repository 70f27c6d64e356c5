"""The table of questions, and what becomes of an answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks.machine import Machine
from benchmarks.question import Answer
from benchmarks.report import Report, read, write, write_page
from benchmarks.rounds import take_turns
from support import guests

SPEED = "support.questions:Speed"
MACHINE = Machine("A Processor", ["amx_bf16"], 2, 24, {"torch": "2.13.0"})


def answer() -> Answer:
    return Answer("Speed", ["", "1 row"], [["Pie", "2 (2.00x)"]], {"samples": [2.0]}, ["A note."])


def report(answer: Answer) -> Report:
    return Report(
        name="speed",
        title=answer.title,
        columns=answer.columns,
        rows=answer.rows,
        notes=answer.notes,
        has_picture=False,
        quick=False,
        asked_on="2026-01-31",
        took_s=1.5,
        machine=MACHINE,
        measured=answer.measured,
    )


@pytest.mark.parametrize("name", bench.QUESTIONS)
def test_every_question_is_found_under_its_own_name(name: str) -> None:
    """The name in the table is the one under which the answer is written."""
    module, cls = bench.QUESTIONS[name].split(":")

    assert name == getattr(import_module(module), cls).name


def test_an_answer_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """The JSON holds the whole report, its samples and its machine."""
    write(report(answer()), answer(), tmp_path)

    assert report(answer()) == read("speed", tmp_path)


def test_the_page_has_the_table_and_the_machine_of_every_answer(tmp_path: Path) -> None:
    """Whoever reads only the page sees the numbers, the notes and where they come from."""
    write(report(answer()), answer(), tmp_path)
    write_page(["never asked", "speed"], tmp_path)
    page = (tmp_path / "README.md").read_text()

    assert "|  | 1 row |\n|---|---:|\n| Pie | 2 (2.00x) |\n" in page
    assert "- A note." in page
    assert MACHINE.line in page


def test_contenders_take_turns_in_an_order_that_alternates() -> None:
    """Nobody is always first; the first round warms up and is not kept."""
    calls: list[tuple[str, int]] = []

    def contender(name: str, number: int) -> int:
        calls.append((name, number))
        return number

    contenders = {name: lambda number, name=name: contender(name, number) for name in "ab"}

    assert {"a": [0, 1], "b": [0, 1]} == take_turns(contenders, 2)
    assert [("a", -1), ("b", -1), ("b", 0), ("a", 0), ("a", 1), ("b", 1)] == calls


def test_a_question_that_fails_is_said_and_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code tells that one failed, whatever the others did."""
    monkeypatch.setattr(bench, "QUESTIONS", {"wrong": "benchmarks:Nothing"})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--out", str(tmp_path)])

    assert 1 == bench.main()
    assert "FAILED: wrong" in capsys.readouterr().err


def test_the_run_ends_with_every_target_in_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of a question that failed cannot be overlooked."""
    monkeypatch.setattr(bench, "QUESTIONS", {"speed": SPEED, "wrong": "benchmarks:Nothing"})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--out", str(tmp_path)])

    assert 1 == bench.main()
    summary = capsys.readouterr().out.split("1 of 1 targets met")[1]
    assert re.search(r"speed, 1 row .* 2.00x .* >= 1.50x .* yes", summary)
    assert re.search(r"wrong .* FAILED", summary)


def test_answers_are_printed_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing else goes to stdout, whatever the question prints."""
    monkeypatch.setattr(bench, "QUESTIONS", {"speed": SPEED})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--json", "--out", str(tmp_path)])

    assert 0 == bench.main()
    [read] = json.loads(capfd.readouterr().out)
    assert ("speed", 2.0) == (read["name"], read["targets"][0]["result"])


def test_a_question_that_cannot_be_asked_says_why_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a trace, which would help nobody who only lacks a peer."""
    monkeypatch.setattr(bench, "QUESTIONS", {"lost": "support.questions:Lost"})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--out", str(tmp_path)])

    assert 1 == bench.main()
    said = capfd.readouterr().err
    assert "lost: install it first" in said
    assert "Traceback" not in said


def test_help_names_what_can_be_asked() -> None:
    """`--help` needs neither torch nor a peer, and says what `--only` takes."""
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        cwd=guests.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "--only" in shown
