"""A program that behaves as its input says: `{"do": NAME, ...}`."""

import time
from typing import Any

from inferlet import (
    Context,
    ForwardPass,
    Model,
    PieError,
    events,
    messaging,
    runtime,
    session,
    storage,
)


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


def do_next_tokens(
    prompt: str, max_tokens: int | None = None, by: str = "next_token"
) -> tuple[list[int], str]:
    """A greedy loop, for ever without a maximum, by single calls or by forward passes. Tokens, and
    the code of the error that ended it."""
    tokens: list[int] = []
    with Context(Model.open()) as context:
        context.append_text(prompt)
        try:
            while max_tokens is None or len(tokens) < max_tokens:
                if by == "next_token":
                    tokens.append(context.next_token(tokens[-1:], temperature=0))
                else:
                    forward = ForwardPass(context, tokens[-1:])
                    forward.sample(temperature=0)
                    tokens += forward.submit().tokens
        except PieError as error:
            return tokens, error.code
    return tokens, ""


def do_relay(
    prompts: list[str], max_tokens: int, first: int = 0, **options: Any
) -> list[tuple[list[int], str, str | None]]:
    """All of them run from the start; one is relayed after the other, the first `first` chunks of
    each taken before. Says "over" after each. Tokens, text and finish reason of each."""
    running = []
    for prompt in prompts:
        context = Context(Model.open())
        context.append_text(prompt)
        running.append(context.generate(max_tokens=max_tokens, **options))
    made = []
    for one in running:
        for _ in range(first):
            one.next()
        one.relay()
        session.send("over")
        made.append((one.tokens, one.text, one.finish_reason))
    return made


def do_relay_again(prompt: str, max_tokens: int, **options: Any) -> tuple[str, list[int]]:
    """Once more when the client has lagged behind for too long, after a word from it."""
    context = Context(Model.open())
    context.append_text(prompt)
    generation = context.generate(max_tokens=max_tokens, **options)
    try:
        generation.relay()
    except PieError as error:
        session.receive()
        return error.code, generation.relay().tokens
    return "ok", generation.tokens


def do_leak(prompt: str) -> None:
    """Leaves a generation running and ends by a trap: no destructor runs."""
    context = Context(Model.open())
    context.append_text(prompt)
    fork = context.fork()
    fork.generate(max_tokens=10_000, temperature=0.0, ignore_eos=True, chunk_tokens=1)
    session.send("leaking")
    raise SystemExit(1)


def do_budget() -> dict[str, Any]:
    return runtime.budget()


def do_store(**pairs: str) -> list[str]:
    for key, value in pairs.items():
        storage.set(key, value)
    return storage.keys()


def do_stored(key: str) -> str | None:
    value = storage.get(key)
    return None if value is None else value.decode()


def do_count_up() -> None:
    """Says each number once it is durable, for ever."""
    number = 0
    while True:
        number += 1
        storage.set("number", str(number))
        session.send(str(number))


def do_work(topic: str) -> list[str]:
    """Pulls until told to stop."""
    done = []
    with messaging.pull(topic) as jobs:
        session.send("pulling")
        for job in jobs:
            if job == "stop":
                return done
            done.append(job)
            session.send(job)


def do_push(topic: str, texts: list[str]) -> None:
    for text in texts:
        messaging.push(topic, text)


def do_hear(topics: list[str], count: int) -> list[str]:
    """The first `count` messages of several broadcasts."""
    heard = []
    listening = [messaging.listen(topic) for topic in topics]
    session.send("listening")
    while len(heard) < count:
        heard += [one.next(0) for one in events.wait_any(listening)]
    return heard


def do_publish(topic: str, texts: list[str]) -> None:
    for text in texts:
        messaging.publish(topic, text)


def do_listen_and_end(topic: str) -> None:
    """Leaves a subscription open and exits in the middle: no destructor runs."""
    messaging.listen(topic)
    kept = messaging.listen(topic)
    session.send("listening")
    session.receive()
    raise SystemExit(2 if kept else 1)


def do_parent(children: list[dict[str, Any]], then: str = "results") -> Any:
    """Launches this program again for each of `children`: `{"input": ..., BUDGET: ...}`."""
    made = []
    for child in children:
        options = dict(child)
        made.append(runtime.launch("behave", options.pop("input"), **options))
    session.send(" ".join(child.id for child in made))
    match then:
        case "results":
            return [outcome(child) for child in made]
        case "detach":
            for child in made:
                child.detach()
        case "cancel":
            for child in made:
                child.cancel()
            return [outcome(child) for child in made]
        case "wait":
            session.receive()
    return [child.id for child in made]


def outcome(child: runtime.Child) -> Any:
    try:
        return child.result()
    except PieError as error:
        return [error.code, error.message]


def do_descend(depth: int = 0) -> Any:
    """How deep launches go before they are refused, and with what."""
    try:
        child = runtime.launch("behave", {"do": "descend", "depth": depth + 1})
    except PieError as error:
        return [depth, error.code, error.message]
    return child.result()


def do_race(child: dict[str, Any]) -> str:
    """Which of a child and a timer comes first."""
    made = runtime.launch("behave", child)
    late = events.timer(3600)
    return "child" if events.wait_any([late, made]) == [made] else "timer"
