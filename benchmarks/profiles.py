"""Flame graphs of what the questions about control measure, by py-spy.

    python -m benchmarks.profiles [NAME ...] [--out DIR]

The width of a box is the share of samples in which a function, or what it called, was running.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.questions.scheduler_step import KINDS, WHOLE, Between, drive
from benchmarks.waiting import JAVASCRIPT, Waiting, waiting_daemon
from pie_backend.batch import BackendConfig, Batch, BatchResult
from pie_backend.dummy import DummyBackend

_PY_SPY = Path(sys.executable).with_name("py-spy")
NUM_ROWS, NUM_STEPS = 256, 1500
NUM_LAUNCHES, NUM_ROUNDS = 896, 3


class Instant(DummyBackend):
    """Answers without a look at its pages, so that nothing but the scheduler is seen."""

    def execute(self, batch: Batch) -> BatchResult:
        return BatchResult(batch.step, [[7] * len(row.samples) for row in batch.rows])


def scheduler_step(svg: Path) -> None:
    """The scheduler alone: the backend answers at once."""
    command = [sys.executable, "-m", "benchmarks.profiles", "--run", "scheduler_step"]
    _record(svg, "--", *command)


def launches(svg: Path) -> None:
    """The daemon while programs are launched, all at once."""
    daemon = waiting_daemon()
    try:
        recording = _start(svg, "--duration", "12", "--pid", str(daemon.pid))
        asyncio.run(_launch(daemon.endpoint))
        recording.wait()
    finally:
        daemon.stop()
        daemon.remove()


async def _launch(endpoint: str) -> None:
    async with Waiting(endpoint) as waiting:
        for _ in range(NUM_ROUNDS):
            await waiting.launch(JAVASCRIPT, NUM_LAUNCHES)
            await waiting.end_all()


PROFILES: dict[str, Callable[[Path], None]] = {
    "scheduler_step": scheduler_step,
    "launches": launches,
}


def _name(svg: Path) -> None:
    """Instead of the command line, which names folders of this machine."""
    text = re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{svg.stem}", svg.read_text())
    svg.write_text(text)


def _start(svg: Path, *what: str) -> subprocess.Popen[bytes]:
    options = ["--rate", "200", "--gil", "--nonblocking", "--output", str(svg)]
    return subprocess.Popen([_PY_SPY, "record", *options, *what])


def _record(svg: Path, *what: str) -> None:
    if _start(svg, *what).wait():
        raise SystemExit(f"py-spy made no {svg}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiles")
    parser.add_argument("names", nargs="*", choices=[*PROFILES, []], metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/profiles"))
    parser.add_argument("--run", action="store_true", help="what py-spy looks at")
    asked = parser.parse_args()
    if asked.run:
        dummy = Instant(BackendConfig(name="dummy", kind="dummy", path="", kv_pages=1 << 16))
        drive(Between(dummy, NUM_ROWS, NUM_STEPS), KINDS[WHOLE], NUM_ROWS, NUM_STEPS)
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in asked.names or PROFILES:
        svg = asked.out / f"{name}.svg"
        PROFILES[name](svg)
        _name(svg)


if __name__ == "__main__":
    main()
