"""What a stage found, row by row: each is in a file before the next one begins."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.rounds import say


class Found(msgspec.Struct, frozen=True):
    """`ok`: None where there is nothing to be right or wrong about."""

    ok: bool | None
    values: dict[str, float | str]


class Row(msgspec.Struct, frozen=True):
    stage: str
    name: str
    ok: bool | None
    values: dict[str, float | str]
    took_s: float
    device: str

    def cells(self) -> list[str]:
        verdict = {True: "ok", False: "FAILED", None: ""}[self.ok]
        values = ", ".join(f"{name} {_short(value)}" for name, value in self.values.items())
        return [self.stage, self.name, verdict, values, f"{self.took_s:.1f}"]


class Task(msgspec.Struct, frozen=True):
    name: str
    run: Callable[[], Found]


class Book:
    """The rows in one folder, a file for each stage; what went well is not done again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def rows(self, stage: str) -> list[Row]:
        """The last one of each name."""
        path = self._path(stage)
        lines = path.read_bytes().splitlines() if path.exists() else []
        found = {row.name: row for row in self._whole(lines)}
        return list(found.values())

    def write(self, row: Row) -> None:
        # A newline first as well: the last line may have been cut off.
        with self._path(row.stage).open("ab") as file:
            file.write(b"\n" + msgspec.json.encode(row) + b"\n")

    def run(self, stage: str, tasks: list[Task], device: str) -> None:
        done = {row.name for row in self.rows(stage) if row.ok is not False}
        for task in tasks:
            if task.name in done:
                say(f"  {stage}: {task.name}: there already")
                continue
            begun = time.perf_counter()
            found = _run(task)
            row = Row(stage, task.name, found.ok, found.values, time.perf_counter() - begun, device)
            self.write(row)
            say("  " + " | ".join(row.cells()))

    @contextmanager
    def guarded(self, stage: str, device: str) -> Iterator[None]:
        """What keeps a whole stage from beginning is a row as well."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a stage that breaks is a finding
            self.write(Row(stage, "the stage itself", False, {"error": _said(error)}, 0.0, device))
            traceback.print_exc()
        else:
            if any(row.name == "the stage itself" for row in self.rows(stage)):
                self.write(Row(stage, "the stage itself", True, {}, 0.0, device))

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage}.jsonl"

    def _whole(self, lines: list[bytes]) -> Iterator[Row]:
        for line in lines:
            try:
                yield msgspec.json.decode(line, type=Row)
            except msgspec.DecodeError:  # cut off when the machine was taken away
                continue


def _run(task: Task) -> Found:
    try:
        return task.run()
    except Exception as error:  # noqa: BLE001 - a row that breaks is a finding
        traceback.print_exc()
        return Found(False, {"error": _said(error)})


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[-2000:]


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:160]
