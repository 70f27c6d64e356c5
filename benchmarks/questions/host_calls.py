"""Microseconds per host call from a Python program, alone and with 32 programs at once.

Functions of the interface are called by programs of a real daemon. What the shape of a value costs
is measured below them, on a component that calls functions which give back what they were given.

Alone is the best of several runs; together it is wall time over all calls of all programs, so that
the interpreter lock they share is in it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING

from benchmarks import pictures
from benchmarks.question import Answer
from benchmarks.rounds import say
from benchmarks.targets import Target
from pie_client import AsyncClient
from pie_client.process import AsyncProcess
from support.daemon import DaemonProcess
from support.guest_host import Sandbox, TestGuest, python_sandbox

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_PROGRAMS = 32
NUM_ROUNDS = 3
ALONE_US, TOGETHER_US = 20.0, 50.0
"""Expected of each function."""
PROGRAM = "calls"
EMPTY_LOOP = "an empty loop"
# function -> calls of one program; that many are timed alone, and in each of them together.
FUNCTIONS = {
    EMPTY_LOOP: 2000,
    "runtime.instance-id": 1000,
    "runtime.budget": 1000,
    "models.model.info": 1000,
    "models.model.encode, 44 characters": 500,
    "models.model.decode": 1000,
    "models.model.token-bytes": 1000,
    "contexts.context.create, drop": 500,
    "contexts.context.fork, drop": 500,
    "contexts.context.length": 1000,
    "contexts.context.tokens, 8": 1000,
    "contexts.context.append, truncate": 1000,
    "contexts.context.set-visible": 1000,
    "contexts.context.flush, computed": 1000,
    "constraints.constraint.accept, rollback": 1000,
    "constraints.constraint.complete": 1000,
    "constraints.constraint.mask": 500,
    "constraints.constraint.fork, drop": 500,
    "events.waitable.ready": 1000,
    "events.wait-any, 5 of them": 500,
    "events.timer, drop": 500,
    "inference.generate, drop": 200,
    "inference.generation.next, 16 tokens": 60,
    "inference.generation.finish": 1000,
    "inference.generation.usage": 1000,
    "inference.forward-pass, drop": 500,
    "inference.forward-pass.sample": 600,
    "session.send, 44 characters": 500,
    "messaging.push, subscription.next": 500,
    "storage.get": 500,
}
# Those whose answer is work of its own, and what it is.
WORK = {
    "models.model.encode, 44 characters": "tokenizes",
    "constraints.constraint.mask": "makes the mask of a vocabulary",
    "constraints.constraint.accept, rollback": "parses",
    "inference.generate, drop": "queues a request, and takes it back",
}
# shape -> calls per run alone; the threads together make as many.
SHAPES = {
    "u32": 20_000,
    "string": 20_000,
    "result": 20_000,
    "record": 10_000,
    "bytes 64 KiB": 40,
    "string 64 KiB": 2_000,
}
Times = dict[str, float]
"""`alone_us` and `together_us`."""


class HostCalls:
    name = "host_calls"

    def answer(self, *, quick: bool) -> Answer:
        functions = list(FUNCTIONS)[:: 8 if quick else 1]
        daemon = DaemonProcess().start()
        try:
            daemon.install(PROGRAM)
            measured = asyncio.run(_functions(daemon.endpoint, functions))
        finally:
            daemon.stop()
            daemon.remove()
        sandbox = python_sandbox()
        for shape, num_calls in list(SHAPES.items())[: 3 if quick else None]:
            calls = num_calls // 8 if quick else num_calls
            measured[f"shape: {shape}"] = {
                "alone_us": _alone_us(sandbox, shape, calls),
                "together_us": _together_us(sandbox, shape, calls),
            }
            say(f"  host_calls, {shape}: {measured[f'shape: {shape}']}")
        return _answer(measured)


async def _functions(endpoint: str, functions: list[str]) -> dict[str, Times]:
    measured = {}
    async with await AsyncClient.connect(endpoint) as client:
        for function in functions:
            alone = [await _calls(client, function, 1) for _ in range(NUM_ROUNDS)]
            together = await _calls(client, function, NUM_PROGRAMS)
            measured[function] = {"alone_us": min(alone), "together_us": together}
            say(f"  host_calls, {function}: {measured[function]}")
    return measured


async def _calls(client: AsyncClient, function: str, num_programs: int) -> float:
    """Microseconds a call, of programs that begin together."""
    number = FUNCTIONS[function]
    given = {"function": function, "calls": number}
    programs = [await client.launch(PROGRAM, given) for _ in range(num_programs)]
    await asyncio.gather(*(_ready(program) for program in programs))
    for program in programs:
        await program.send("go")
    said = [await program.result() for program in programs]
    # The host hears of a dropped handle in a call of its own.
    number *= 2 if function.endswith("drop") else 1
    if num_programs == 1:
        return float(said[0]["seconds"]) / number * 1e6
    seconds = max(one["ended_s"] for one in said) - min(one["begun_s"] for one in said)
    return float(seconds) / (num_programs * number) * 1e6


async def _ready(program: AsyncProcess) -> None:
    async for _ in program.events():
        return


def _alone_us(sandbox: Sandbox, shape: str, num_calls: int) -> float:
    runs = [
        sandbox.run("bench", shape, num_calls, guest=TestGuest(remember=False)) for _ in range(5)
    ]
    return min(float(json.loads(run.text)) for run in runs)


def _together_us(sandbox: Sandbox, shape: str, num_calls: int) -> float:
    each = max(1, num_calls // NUM_PROGRAMS)
    threads = [
        threading.Thread(
            target=sandbox.run,
            args=("bench", shape, each),
            kwargs={"guest": TestGuest(remember=False)},
        )
        for _ in range(NUM_PROGRAMS)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - start) / (each * NUM_PROGRAMS) * 1e6


def _answer(measured: dict[str, Times]) -> Answer:
    slow = [name for name, times in measured.items() if _is_slow(name, times)]
    return Answer(
        title="Microseconds per host call of a Python program",
        columns=["call", "alone", f"{NUM_PROGRAMS} programs at once", "beyond", "what is in it"],
        rows=[
            [
                name,
                f"{times['alone_us']:,.1f}",
                f"{times['together_us']:,.1f}",
                "*" if name in slow else "",
                WORK.get(name, ""),
            ]
            for name, times in measured.items()
        ],
        measured=measured,
        notes=[
            f"Expected of each function: {ALONE_US:g} alone, {TOGETHER_US:g} together.",
            "Two names are called in turn, and so is the drop of a handle: the mean of both.",
            "Together all calls share one interpreter lock: their sum over the wall time.",
        ],
        targets=[
            _within("alone", "alone_us", ALONE_US, measured),
            _within(f"{NUM_PROGRAMS} at once", "together_us", TOGETHER_US, measured),
        ],
        draw=lambda figure: _draw(measured, figure),
    )


def _within(how: str, key: str, bound_us: float, measured: dict[str, Times]) -> Target:
    """The share of the functions that take no longer."""
    times = [measured[name][key] for name in FUNCTIONS if name in measured and name != EMPTY_LOOP]
    share = 100 * sum(us <= bound_us for us in times) / len(times)
    return Target(f"functions within {bound_us:g} us, {how}", share, 100, "%")


def _is_slow(name: str, times: Times) -> bool:
    over = times["alone_us"] > ALONE_US or times["together_us"] > TOGETHER_US
    return over and not name.startswith("shape")


def _draw(measured: dict[str, Times], figure: Figure) -> None:
    panels: dict[str, dict[str, float]] = {
        title: {f"Pie, {name}": times[key] for name, times in measured.items() if "KiB" not in name}
        for title, key in (("alone", "alone_us"), ("32 at once", "together_us"))
    }
    pictures.bars(figure, panels, "us")
