"""`make gpu-check`: whether and how fast Pie computes on a GPU, in stages that can be gone on with.

    python -m benchmarks.gpu [--stages NAME ...] [--device cuda|cpu] [--out DIR] [--minutes N]
                             [--publish]

Every row is in DIR/STAGE.jsonl before the next one begins; a second run does only what is missing
or has failed. `--device cpu` rehearses everything with tiny shapes. `--publish` writes the table to
docs/benchmarks/gpu. Exit codes: 0 all is well, 1 a row failed, 69 there is no usable GPU, 75 time
ran out: run it again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.report import publish, table
from benchmarks.gpu.rows import Book
from benchmarks.question import Unanswerable
from benchmarks.rounds import say

STAGES = ("kernels", "parity", "daemon", "ratios")
_FAILED, _NO_GPU, _AGAIN = 1, os.EX_UNAVAILABLE, os.EX_TEMPFAIL


def main() -> int:
    asked = _arguments()
    if asked.only is not None:
        return _stage(asked.only, asked.device, asked.out)
    codes = {}
    for stage in asked.stages:
        say(f"{stage} ...")
        codes[stage] = _in_time(stage, asked)
        if codes[stage] == _NO_GPU:
            return _NO_GPU
    book = Book(asked.out)
    rows = [row for stage in STAGES for row in book.rows(stage)]
    print(table(rows))
    if asked.publish:
        say(f"written to {publish(rows, asked.device)}")
    if _AGAIN in codes.values():
        say("time ran out; the same command goes on from there")
        return _AGAIN
    return _FAILED if any(codes.values()) or any(row.ok is False for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path(".cache/gpu-check"), metavar="DIR")
    parser.add_argument("--minutes", type=float, default=8.0, help="for each stage")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--only", choices=STAGES, help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_time(stage: str, asked: argparse.Namespace) -> int:
    """In a process of its own, which ends with all that it started when its time is over."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", stage]
    command += ["--device", asked.device, "--out", str(asked.out)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(asked.minutes * 60)
    except subprocess.TimeoutExpired:
        return _AGAIN
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _stage(stage: str, device: str, out: Path) -> int:
    from benchmarks.gpu.setup import set_up

    try:
        setup = set_up(device)
    except Unanswerable as missing:
        say(f"There is no GPU that Pie can use: {missing}")
        say("`--device cpu` rehearses every stage without one.")
        return _NO_GPU
    book = Book(out)
    with book.guarded(stage, setup.device.name):
        tasks = import_module(f"benchmarks.gpu.{stage}").tasks(setup)
        book.run(stage, tasks, setup.device.name)
    return _FAILED if any(row.ok is False for row in book.rows(stage)) else 0


if __name__ == "__main__":
    sys.exit(main())
