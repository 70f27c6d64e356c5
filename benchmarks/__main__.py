"""`make bench`: every question, each answered by one table and one picture; then a summary.

    python -m benchmarks [--quick] [--only NAME ...] [--out DIR] [--json]

Tables go to stdout, progress to stderr, files to DIR (`docs/benchmarks`; `.cache/bench/quick` with
`--quick`, whose numbers are too few to be kept). A question that fails does not stop the others,
but the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.machine import this_machine
from benchmarks.report import Report, Summary, read, write_page
from benchmarks.rounds import say

QUESTIONS = {
    "decode": "benchmarks.questions.decode:Decode",
    "decode_06b": "benchmarks.questions.decode:DecodeLarge",
    "prefill": "benchmarks.questions.prefill:Prefill",
    "arrivals": "benchmarks.questions.arrivals:Arrivals",
    "roofline": "benchmarks.questions.roofline:Roofline",
    "ranks": "benchmarks.questions.ranks:Ranks",
    "scaling": "benchmarks.questions.scaling:Scaling",
    "contention": "benchmarks.questions.contention:Contention",
    "speculation": "benchmarks.questions.speculation:Speculation",
    "tax": "benchmarks.questions.tax:Tax",
    "programs": "benchmarks.questions.programs.question:Programs",
    "host_calls": "benchmarks.questions.host_calls:HostCalls",
    "launches": "benchmarks.questions.launches:Launches",
    "idle_memory": "benchmarks.questions.idle_memory:IdleMemory",
    "scheduler_step": "benchmarks.questions.scheduler_step:SchedulerStep",
    "wakeups": "benchmarks.questions.wakeups:Wakeups",
}
"""Name -> module:class. Read when it is asked, so that none needs what another imports."""


def main() -> int:
    asked = _arguments()
    # Whoever ends this ends what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = asked.out or Path(".cache/bench/quick" if asked.quick else "docs/benchmarks")
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120, quiet=asked.json)
    console.print(this_machine().line, style="bold")
    reports: list[Report] = []
    failed: list[str] = []
    for name in asked.only or QUESTIONS:
        if not _answered(name, asked.quick, out):
            failed.append(name)
            continue
        reports.append(read(name, out))
        console.print(reports[-1].table(), "")
        write_page(QUESTIONS, out)
    console.print(Summary(reports, failed).table())
    if asked.json:
        print(msgspec.json.encode(reports).decode())
    say(f"answers are in {out}" + f"; FAILED: {', '.join(failed)}" * bool(failed))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="all questions in a few minutes")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, metavar="NAME")
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="the answers as JSON, not as tables")
    return parser.parse_args()


def _answered(name: str, quick: bool, out: Path) -> bool:
    say(f"{name} ...")
    begun = time.monotonic()
    code = _ask(name, quick, out)
    say(f"{name} {'FAILED' if code else 'answered'} after {time.monotonic() - begun:.0f} s")
    return code == 0


def _ask(name: str, quick: bool, out: Path) -> int:
    """In a process of its own, so that nothing of one question disturbs the next; its exit code."""
    command = [sys.executable, "-m", "benchmarks.ask", QUESTIONS[name], str(out)]
    asked = subprocess.Popen(command + ["--quick"] * quick, start_new_session=True, stdout=2)
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
