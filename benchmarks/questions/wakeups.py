"""How many threads a step of the model wakes in the daemon, and what that costs a token.

Programs that wait for their answer should sleep until it is there. Every thread of the daemon's
process is looked at twice while all programs run: a voluntary context switch is a wait that ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import pictures
from benchmarks.contenders.bare_loop import pages_for
from benchmarks.question import Answer
from benchmarks.rounds import say
from pie_client import Client
from support.daemon import DaemonProcess, scheduler_of
from support.waiting import until

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRAM = "text-completion"
NEW_TOKENS = 900
WINDOW_S = 2.0
WAYS: dict[str, dict[str, Any]] = {
    "for the whole answer": {},
    "for the whole answer, which is relayed by the token": {"stream": True},
    "for every token, and send it with its log probability": {"stream": True, "logprobs": 0},
}
"""What programs wait for, and the options that make them do so."""


class Moment(NamedTuple):
    at_s: float
    steps: int
    tokens: int
    switches: dict[int, int]
    """Voluntary ones of every thread."""
    preempted: int
    """Involuntary ones of all threads."""


class Woken(NamedTuple):
    """Between two moments."""

    threads: float
    """That a step woke; one that was woken twice counts twice."""
    sleepers: int
    """Threads that slept all the time."""
    switches_per_token: float
    preempted_per_token: float
    tokens_per_s: float


class Wakeups:
    name = "wakeups"

    def answer(self, *, quick: bool) -> Answer:
        counts = (32,) if quick else (32, 256)
        pages = max(counts) * pages_for(NEW_TOKENS + 16)
        daemon = DaemonProcess(f"backend.kv_pages={pages}").start()
        try:
            daemon.install(PROGRAM)
            measured = {
                (num_programs, how): _measure(daemon, num_programs, how)
                for num_programs in counts
                for how in WAYS
            }
        finally:
            daemon.stop()
            daemon.remove()
        return _answer(measured)


def _measure(daemon: DaemonProcess, num_programs: int, how: str) -> Woken:
    with daemon.connect() as client, ExitStack() as stack:
        for number in range(num_programs):
            given = {
                "prompt": f"Story number {number}:",
                "max_tokens": NEW_TOKENS,
                "temperature": 0,
                "ignore_eos": True,
                **WAYS[how],
            }
            stack.enter_context(client.launch(PROGRAM, given))
        until(lambda: _running(client) == num_programs)
        before = _moment(client, daemon.pid)
        time.sleep(WINDOW_S)
        after = _moment(client, daemon.pid)
        assert _running(client) == num_programs, "they ended while they were watched"
    woken = _between(before, after)
    say(f"  wakeups, {num_programs} programs that wait {how}: {woken}")
    until(partial(_is_idle, daemon))
    return woken


def _running(client: Client) -> Any:
    return scheduler_of(client)["running_requests"]


def _is_idle(daemon: DaemonProcess) -> bool:
    with daemon.connect() as client:
        return bool(scheduler_of(client)["owners"] == 0)


def _moment(client: Client, pid: int) -> Moment:
    numbers: dict[str, Any] = scheduler_of(client)
    voluntary, preempted = {}, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        voluntary[int(task.name)] = int(fields["voluntary_ctxt_switches"])
        preempted += int(fields["nonvoluntary_ctxt_switches"])
    return Moment(
        time.perf_counter(), numbers["steps"], numbers["generated_tokens"], voluntary, preempted
    )


def _between(before: Moment, after: Moment) -> Woken:
    steps, tokens = after.steps - before.steps, after.tokens - before.tokens
    grown = [after.switches[thread] - old for thread, old in before.switches.items()]
    return Woken(
        threads=sum(grown) / steps,
        sleepers=grown.count(0),
        switches_per_token=sum(grown) / tokens,
        preempted_per_token=(after.preempted - before.preempted) / tokens,
        tokens_per_s=tokens / (after.at_s - before.at_s),
    )


def _answer(measured: dict[tuple[int, str], Woken]) -> Answer:
    return Answer(
        title="Threads of the daemon that a step of the embedded model wakes, by what programs "
        "wait for",
        columns=[
            "programs wait",
            "woken a step",
            "asleep all the time",
            "switches a token",
            "preempted a token",
            "tokens/s",
        ],
        rows=[
            [
                f"{num_programs} {how}",
                f"{woken.threads:,.1f}",
                str(woken.sleepers),
                f"{woken.switches_per_token:.2f}",
                f"{woken.preempted_per_token:.2f}",
                f"{woken.tokens_per_s:,.0f}",
            ]
            for (num_programs, how), woken in measured.items()
        ],
        measured={
            f"{num_programs} {how}": woken._asdict()
            for (num_programs, how), woken in measured.items()
        },
        notes=[
            "A step cannot do with less than the scheduler's thread and those of the worker's "
            "pipe; a program that takes every token has to wake for it.",
        ],
        draw=partial(_draw, measured),
    )


def _draw(measured: dict[tuple[int, str], Woken], figure: Figure) -> None:
    panels: dict[str, Callable[[Woken], float]] = {
        "threads woken a step": lambda woken: woken.threads,
        "switches a token": lambda woken: woken.switches_per_token,
    }
    shown = {
        title: {f"Pie, {number} {how}": value(woken) for (number, how), woken in measured.items()}
        for title, value in panels.items()
    }
    pictures.bars(figure, shown, "")
