"""`make bench`: every table, side by side in one run. Ratios are the result, not the times."""

from __future__ import annotations

import sys

from rich.console import Console

from benchmarks import contention, host_calls
from benchmarks.model import ensure_model
from benchmarks.programs import Programs
from benchmarks.throughput import (
    MODEL_DIR,
    ROUNDS,
    WIDTHS,
    BareLoop,
    TransformersGenerate,
    compare,
    table,
)


def main() -> None:
    ensure_model(MODEL_DIR)
    loop = BareLoop(MODEL_DIR)
    reference = TransformersGenerate(MODEL_DIR)
    whole = Programs(MODEL_DIR.absolute(), stream=False)
    streamed = Programs(MODEL_DIR.absolute(), stream=True)
    contenders = {
        "transformers.generate": reference.tokens_per_s,
        "engine, bare loop": loop.tokens_per_s,
        "programs through the daemon": whole.tokens_per_s,
        "programs, streamed by the token": streamed.tokens_per_s,
    }
    try:
        medians = compare(contenders, WIDTHS, ROUNDS)
    finally:
        whole.close()
        streamed.close()
        loop.close()
    Console(file=sys.stdout, width=110).print(table(medians, "transformers.generate"))
    contention.main()
    host_calls.main()


if __name__ == "__main__":
    main()
