"""What a program that waits costs in memory: the daemon before and after there are many of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

from benchmarks.question import Answer
from benchmarks.rounds import say
from benchmarks.waiting import JAVASCRIPT, LABELS, PYTHON, Waiting, waiting_daemon
from support.daemon import DaemonProcess


class Held(NamedTuple):
    """By one process, in bytes."""

    resident: int
    proportional: int
    """Of what it shares with others only its share."""
    private: int
    """Nobody else's: it comes back when the process lets it go."""
    num_threads: int


class IdleMemory:
    name = "idle_memory"

    def answer(self, *, quick: bool) -> Answer:
        counts = {PYTHON: 32, JAVASCRIPT: 128} if quick else {PYTHON: 256, JAVASCRIPT: 896}
        daemon = waiting_daemon()
        try:
            measured = asyncio.run(_measure(daemon, counts))
        finally:
            daemon.stop()
            daemon.remove()
        return Answer(
            title="Memory of a program that waits for its client, in the daemon's process",
            columns=["program", "waiting", "MiB each", "private MiB each", "threads each"],
            rows=[_row(program, counts[program], *held) for program, held in measured.items()],
            measured={
                program: [one._asdict() for one in held] for program, held in measured.items()
            },
            notes=[
                "Before the first measurement one had come and gone: the compiled program, which "
                "all of them share, is not in the difference. Pages that several processes share "
                "count by their share.",
            ],
        )


async def _measure(daemon: DaemonProcess, counts: dict[str, int]) -> dict[str, tuple[Held, Held]]:
    measured = {}
    async with Waiting(daemon.endpoint) as waiting:
        for program, num_programs in counts.items():
            await waiting.launch(program, 1)
            await waiting.end_all()
            before = held_by(daemon.pid)
            await waiting.launch(program, num_programs)
            measured[program] = before, held_by(daemon.pid)
            await waiting.end_all()
            say(f"  idle_memory, {program}: {measured[program]}")
    return measured


def held_by(pid: int) -> Held:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {name: int(number) for name, number in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    num_threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return Held(kib["Rss"] << 10, kib["Pss"] << 10, private << 10, num_threads)


def _row(program: str, num_programs: int, before: Held, after: Held) -> list[str]:
    each = [(new - old) / num_programs for old, new in zip(before, after, strict=True)]
    return [
        LABELS[program],
        str(num_programs),
        f"{each[1] / 2**20:.2f}",
        f"{each[2] / 2**20:.2f}",
        f"{each[3]:.1f}",
    ]
