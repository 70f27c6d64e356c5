"""Microseconds per host call from a Python program, alone and with 32 programs at once.

Alone is the best of several runs; at 32 threads it is wall time over all calls of all programs,
so that the interpreter lock they share is in it.
"""

from __future__ import annotations

import json
import threading
import time

from benchmarks.question import Answer
from benchmarks.rounds import say
from support.guest_host import Sandbox, TestGuest, python_sandbox

NUM_THREADS = 32
# case -> calls per run alone; the threads together make as many.
CASES = {
    "loop": 200_000,
    "u32": 20_000,
    "string": 20_000,
    "result": 20_000,
    "record": 10_000,
    "bytes 64 KiB": 40,
    "string 64 KiB": 2_000,
}


class HostCalls:
    name = "host_calls"

    def answer(self, *, quick: bool) -> Answer:
        sandbox = python_sandbox()
        measured = {}
        for case, num_calls in CASES.items():
            calls = num_calls // 2 if quick else num_calls
            measured[case] = {
                "alone_us": _alone_us(sandbox, case, calls),
                "together_us": _together_us(sandbox, case, calls),
            }
            say(f"  {self.name}, {case}: {measured[case]}")
        return Answer(
            title="Microseconds per host call of a Python program",
            columns=["call", "alone", f"{NUM_THREADS} programs at once"],
            rows=[
                [case, f"{times['alone_us']:.1f}", f"{times['together_us']:.1f}"]
                for case, times in measured.items()
            ],
            measured=measured,
            notes=["`loop` is what the program itself needs to make a call."],
        )


def _alone_us(sandbox: Sandbox, case: str, num_calls: int) -> float:
    runs = [
        sandbox.run("bench", case, num_calls, guest=TestGuest(remember=False)) for _ in range(5)
    ]
    return min(float(json.loads(run.text)) for run in runs)


def _together_us(sandbox: Sandbox, case: str, num_calls: int) -> float:
    each = max(1, num_calls // NUM_THREADS)
    threads = [
        threading.Thread(
            target=sandbox.run,
            args=("bench", case, each),
            kwargs={"guest": TestGuest(remember=False)},
        )
        for _ in range(NUM_THREADS)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - start) / (each * NUM_THREADS) * 1e6
