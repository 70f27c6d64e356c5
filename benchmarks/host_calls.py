"""Microseconds per host call from a Python program, alone and with 32 programs at once.

    python benchmarks/host_calls.py

Alone is the best of several runs; at 32 threads it is wall time over all calls of all programs,
so that the interpreter lock they share is in it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

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


def alone_us(sandbox: Sandbox, case: str, num_calls: int) -> float:
    runs = [
        sandbox.run("bench", case, num_calls, guest=TestGuest(remember=False)) for _ in range(5)
    ]
    return min(float(json.loads(run.text)) for run in runs)


def together_us(sandbox: Sandbox, case: str, num_calls: int) -> float:
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


def measure(sandbox: Sandbox | None = None) -> dict[str, tuple[float, float]]:
    """Case -> (us alone, us at 32 threads). `loop` is the program's own cost of making a call."""
    sandbox = sandbox or python_sandbox()
    return {
        case: (alone_us(sandbox, case, calls), together_us(sandbox, case, calls))
        for case, calls in CASES.items()
    }


def main() -> None:
    print(f"{'host call':16} {'us alone':>10} {'us at 32 threads':>18}")
    for case, (alone, together) in measure().items():
        print(f"{case:16} {alone:10.1f} {together:18.1f}")


if __name__ == "__main__":
    main()
