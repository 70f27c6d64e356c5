"""`make bench`: every question, each answered by one table and one picture.

    python -m benchmarks [--quick] [--only NAME ...] [--out DIR]

Tables go to stdout, progress to stderr, files to DIR (`docs/benchmarks`; `.cache/bench/quick` with
`--quick`, whose numbers are too few to be kept).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks.machine import this_machine
from benchmarks.report import read, write_page
from benchmarks.rounds import say

QUESTIONS = {
    "decode": "benchmarks.questions.decode:Decode",
    "decode_06b": "benchmarks.questions.decode:DecodeLarge",
    "prefill": "benchmarks.questions.prefill:Prefill",
    "arrivals": "benchmarks.questions.arrivals:Arrivals",
    "roofline": "benchmarks.questions.roofline:Roofline",
    "scaling": "benchmarks.questions.scaling:Scaling",
    "contention": "benchmarks.questions.contention:Contention",
    "speculation": "benchmarks.questions.speculation:Speculation",
    "tax": "benchmarks.questions.tax:Tax",
    "host_calls": "benchmarks.questions.host_calls:HostCalls",
    "launches": "benchmarks.questions.launches:Launches",
    "idle_memory": "benchmarks.questions.idle_memory:IdleMemory",
    "scheduler_step": "benchmarks.questions.scheduler_step:SchedulerStep",
}
"""Name -> module:class. Read when it is asked, so that none needs what another imports."""


def main() -> int:
    asked = _arguments()
    # Whoever ends this ends what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = asked.out or Path(".cache/bench/quick" if asked.quick else "docs/benchmarks")
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    console.print(this_machine().line, style="bold")
    failed = []
    for name in asked.only or QUESTIONS:
        say(f"{name} ...")
        begun = time.monotonic()
        if _ask(name, asked.quick, out):
            failed.append(name)
            say(f"{name} FAILED after {time.monotonic() - begun:.0f} s")
            continue
        console.print(read(name, out).table(), "")
        write_page(QUESTIONS, out)
    say(f"answers are in {out}" + f"; FAILED: {', '.join(failed)}" * bool(failed))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="all questions in under 3 minutes")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, metavar="NAME")
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser.parse_args()


def _ask(name: str, quick: bool, out: Path) -> int:
    """In a process of its own, so that nothing of one question disturbs the next; its exit code."""
    command = [sys.executable, "-m", "benchmarks.ask", QUESTIONS[name], str(out)]
    asked = subprocess.Popen(command + ["--quick"] * quick, start_new_session=True)
    try:
        return asked.wait()
    finally:
        _end(asked.pid)


def _end(group: int) -> None:
    """What the question left running: daemons and peers of one that failed."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())
