"""Answers as files and tables: JSON and a picture for each, one page of Markdown for all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import Any

import msgspec
from rich.table import Table

from benchmarks import targets
from benchmarks.machine import Machine
from benchmarks.question import Answer
from benchmarks.targets import Target

_PAGE = """# What `make bench` measured

Written by `python -m benchmarks`; [performance.md](../performance.md) says how to read it.
Contenders of one table took turns in one run, on the same weights, threads and token counts.
Ratios are the result: the times belong to the machine.
"""


_LETTERS_PER_INCH = 11


class Report(msgspec.Struct, frozen=True):
    """An answer as it lies in a file, `NAME.json`."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    has_picture: bool
    quick: bool
    asked_on: str
    """The day, in UTC."""
    took_s: float
    machine: Machine
    measured: dict[str, Any]
    targets: list[Target] = []

    def table(self) -> Table:
        return _table(self.title, self.columns, self.rows, self.notes)

    def markdown(self) -> str:
        lines = [f"## {self.name}", f"{self.title}", "", *_markdown(self.columns, self.rows), ""]
        if self.has_picture:
            lines += [f"![{self.title}]({self.name}.png)", ""]
        lines += [f"- {note}" for note in self.notes]
        when = f"{self.asked_on}{', quick' * self.quick}, {self.took_s:.0f} s"
        lines += ["", f"*{when}. {self.machine.line}.*"]
        return "\n".join(lines)


class Summary:
    """All targets in one table, those of questions that failed as failed."""

    def __init__(self, reports: list[Report], failed: Iterable[str] = ()) -> None:
        self.title = targets.headline(target for one in reports for target in one.targets)
        if any(one.quick for one in reports):
            self.title += " (quick: too few samples to judge by)"
        self.rows = [target.row(one.name) for one in reports for target in one.targets]
        self.rows += [[name, *[""] * (len(targets.COLUMNS) - 2), "FAILED"] for name in failed]

    def table(self) -> Table:
        return _table(self.title, targets.COLUMNS, self.rows, [])

    def markdown(self) -> str:
        lines = [f"## Summary: {self.title}", "", *_markdown(targets.COLUMNS, self.rows)]
        return "\n".join(lines)


def write(report: Report, answer: Answer, out: Path) -> None:
    """The picture first: whoever sees the JSON sees the picture it speaks of."""
    if answer.draw is not None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
        answer.draw(figure)
        width = round(_LETTERS_PER_INCH * figure.get_figwidth())
        figure.suptitle(fill(answer.title, width), fontsize=11)
        figure.savefig(out / f"{report.name}.png")
    packed = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (out / f"{report.name}.json").write_bytes(packed + b"\n")


def read(name: str, out: Path) -> Report:
    return msgspec.json.decode((out / f"{name}.json").read_bytes(), type=Report)


def write_page(names: Iterable[str], out: Path) -> None:
    """`README.md` of every answer that lies there, also of an earlier run, in the given order."""
    found = [read(name, out) for name in names if (out / f"{name}.json").is_file()]
    parts = [_PAGE, Summary(found).markdown(), *(report.markdown() for report in found)]
    (out / "README.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


def _table(title: str, columns: list[str], rows: list[list[str]], notes: list[str]) -> Table:
    shown = Table(title=title, caption="\n".join(notes) or None, caption_justify="left")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def _markdown(columns: list[str], rows: list[list[str]]) -> list[str]:
    rule = "|".join("---:" if number else "---" for number in range(len(columns)))
    return [_line(columns), f"|{rule}|", *map(_line, rows)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
