"""A program that behaves as its input says: `{"do": NAME, ...}`."""

import time
from typing import Any

from inferlet import Context, Model, runtime, session


def run(input: dict[str, Any]) -> Any:
    arguments = dict(input)
    return globals()["do_" + arguments.pop("do")](**arguments)


def do_spin() -> None:
    session.send("spinning")
    while True:
        pass


def do_sleep(seconds: float) -> str:
    session.send("sleeping")
    time.sleep(seconds)
    return "slept"


def do_receive() -> Any:
    session.send("receiving")
    message = session.receive()
    return None if message is None else str(message)


def do_flood(messages: int) -> int:
    for _ in range(messages):
        session.send("x" * 1000)
    return messages


def do_print(lines: int) -> int:
    for number in range(lines):
        print(f"line {number} " + "y" * 200)
    return lines


def do_allocate() -> None:
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def do_raise() -> None:
    raise ValueError("as asked")


def do_exit() -> None:
    raise SystemExit(3)


def do_log() -> str:
    runtime.log("a warning", "warning")
    return runtime.instance_id()


def do_generate(prompt: str, max_tokens: int, repeat: int = 1, **options: Any) -> list[list[int]]:
    """Fresh contexts on which nothing else happens; tokens of each."""
    made = []
    for _ in range(repeat):
        with Context(Model.open()) as context:
            context.append_text(prompt)
            with context.generate(max_tokens=max_tokens, **options) as generation:
                for _chunk in generation:
                    pass
                made.append(generation.tokens)
    return made


def do_leak(prompt: str) -> None:
    """Leaves a generation running and ends by a trap: no destructor runs."""
    context = Context(Model.open())
    context.append_text(prompt)
    fork = context.fork()
    fork.generate(max_tokens=10_000, temperature=0.0, ignore_eos=True, chunk_tokens=1)
    session.send("leaking")
    raise SystemExit(1)
