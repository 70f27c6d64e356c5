"""Questions for tests of how they are asked."""

from __future__ import annotations

import sys

from benchmarks.question import Answer, Unanswerable
from benchmarks.targets import ratio


class Speed:
    name = "speed"

    def answer(self, *, quick: bool) -> Answer:
        sys.stdout.write("measuring\n")
        return Answer(
            "Speed",
            ["", "1 row"],
            [["Pie", "3 (2.00x)"]],
            {"tokens_per_s": [3.0]},
            targets=[ratio("1 row", {"Pie": 3.0, "a": 1.5}, ("Pie", "a"), 1.5, "tokens/s")],
        )


class Lost:
    name = "lost"

    def answer(self, *, quick: bool) -> Answer:
        raise Unanswerable("install it first")
