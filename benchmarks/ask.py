"""Asks one question, in a process that ends with it: `python -m benchmarks.ask OBJECT OUT`."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.machine import this_machine
from benchmarks.question import Question, Unanswerable
from benchmarks.report import Report, write


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ask")
    parser.add_argument("target", help="module:class")
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    module, cls = asked.target.split(":")
    question: Question = getattr(import_module(module), cls)()
    begun = time.monotonic()
    try:
        answer = question.answer(quick=asked.quick)
    except Unanswerable as reason:
        sys.exit(f"{question.name}: {reason}")
    report = Report(
        name=question.name,
        title=answer.title,
        columns=answer.columns,
        rows=answer.rows,
        notes=answer.notes,
        has_picture=answer.draw is not None,
        quick=asked.quick,
        asked_on=f"{datetime.now(UTC):%Y-%m-%d}",
        took_s=round(time.monotonic() - begun, 1),
        machine=this_machine(),
        measured=answer.measured,
        targets=answer.targets,
    )
    write(report, answer, asked.out)


if __name__ == "__main__":
    main()
