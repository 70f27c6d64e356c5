"""Calls one function of the host over and over, and says how long a call took.

It waits for a word of its client first, so that many programs can begin together. The functions are
those of the interface itself, without the SDK around them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from inferlet import Arguments, _host, session

TEXT = "The quick brown fox jumps over the lazy dog."
SCHEMA = '{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}'

Calls = Iterator[Callable[[], Any]]
"""Yields what makes the next call, one for each; what has to be prepared for all comes first."""


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    name = arguments.text("function")
    number = arguments.integer("calls", minimum=1)
    arguments.finish()

    with ExitStack() as kept:
        calls = CASES[name](_host.models.Model.open(None), number, kept)
        session.send("ready")
        session.receive()
        begun, wall = time.perf_counter(), time.time()
        for call in calls:
            call()
        return {
            "us": (time.perf_counter() - begun) / number * 1e6,
            "begun_s": wall,
            "ended_s": time.time(),
        }
