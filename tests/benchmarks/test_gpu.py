"""The check of a GPU, rehearsed without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import STAGES
from benchmarks.gpu.report import table
from benchmarks.gpu.rows import Book, Found, Task
from pie_backend.engine.devices import facts

ROOT = Path(__file__).parents[2]


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = ["", "backend", "bakery", "sdk/python", "tests"]
    search = os.pathsep.join(str(ROOT / path) for path in paths)
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search},
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_stage_can_be_rehearsed(tmp_path: Path) -> None:
    """From end to end on the processor; a second run finds everything there already."""
    first = check("--device", "cpu", "--out", str(tmp_path))
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.rstrip().endswith(" 0 failed")
    rows = {stage: Book(tmp_path).rows(stage) for stage in STAGES}
    assert all(len(found) >= 4 for found in rows.values())
    assert {row.device for found in rows.values() for row in found} == {"cpu"}

    again = check("--device", "cpu", "--out", str(tmp_path), "--stages", "kernels")
    assert again.returncode == 0
    assert again.stderr.count("there already") == len(rows["kernels"])


@pytest.mark.slow
def test_time_that_runs_out_is_no_failure(tmp_path: Path) -> None:
    """What was found is there, and the code says that there is more to do."""
    cut = check(
        "--device", "cpu", "--out", str(tmp_path), "--stages", "parity", "--minutes", "0.05"
    )
    assert cut.returncode == os.EX_TEMPFAIL
    assert "goes on from there" in cut.stderr


@pytest.mark.skipif(facts.look().gpu is not None, reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path) -> None:
    """With an exit code of its own, and nothing written."""
    done = check("--out", str(tmp_path), "--stages", "kernels")
    assert done.returncode == os.EX_UNAVAILABLE
    assert "There is no GPU that Pie can use: " in done.stderr
    assert "--device cpu" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_went_well_is_not_done_again(tmp_path: Path) -> None:
    """What failed is, and a line that was cut off counts as never written."""
    calls: list[str] = []

    def task(name: str, ok: bool) -> Task:
        def run() -> Found:
            calls.append(name)
            if not ok:
                raise ValueError("no luck")
            return Found(True, {"x": 1.0})

        return Task(name, run)

    Book(tmp_path).run("s", [task("good", True), task("bad", False)], "gpu")
    with (tmp_path / "s.jsonl").open("a") as file:
        file.write('{"stage": "s", "name": "torn')
    Book(tmp_path).run("s", [task("good", True), task("bad", True)], "gpu")

    assert calls == ["good", "bad", "bad"]
    assert [("good", True), ("bad", True)] == [(r.name, r.ok) for r in Book(tmp_path).rows("s")]


def test_failures_stand_out_in_the_table(tmp_path: Path) -> None:
    """With what was said; cells cannot break the table."""
    book = Book(tmp_path)

    def fail() -> Found:
        raise RuntimeError("a | b\nc")

    book.run("s", [Task("bad", fail), Task("plain", lambda: Found(None, {"x": 0.5}))], "gpu")
    with book.guarded("s", "gpu"):
        raise RuntimeError("nothing works")
    rows = book.rows("s")
    assert "| s | bad | FAILED | error RuntimeError: a / b c |" in table(rows)
    assert table(rows).endswith("3 rows, 2 failed")
    with book.guarded("s", "gpu"):
        pass
    assert table(book.rows("s")).endswith("3 rows, 1 failed")
