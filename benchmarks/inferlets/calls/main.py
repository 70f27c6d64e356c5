"""Calls functions of the host over and over, and says how long a call took.

It waits for a word of its client first, so that many programs can begin together. The functions are
those of the interface itself, without the SDK around them.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from typing import Any

from inferlet import Arguments, _host, session

TEXT = "The quick brown fox jumps over the lazy dog."
SCHEMA = '{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}'
NEW_TOKENS = '{"temperature": 0, "ignore_eos": true, "chunk_tokens": 0, "max_tokens": 16}'

Call = Callable[[], Any]


class Bench:
    """What the cases below have to call something on; it goes when they have been timed."""

    def __init__(self, number: int, kept: ExitStack) -> None:
        self.number = number
        self.kept = kept
        self.model = kept.enter_context(_host.models.Model.open(None))
        self.tokens = self.model.encode(TEXT, False)

    def context(self) -> Any:
        """With some tokens, all of them computed."""
        context = self.kept.enter_context(_host.contexts.Context.create(self.model))
        context.append(self.tokens)
        context.flush()
        return context

    def constraint(self) -> Any:
        made = _host.constraints.Constraint.json_schema(self.model, SCHEMA)
        return self.kept.enter_context(made)

    def generation(self, context: Any) -> Any:
        """With everything that it makes ready to be taken."""
        made = _host.inference.generate(context, NEW_TOKENS, None, None)
        generation = self.kept.enter_context(made)
        ready = self.kept.enter_context(generation.subscribe())
        _host.events.wait_any([ready], None)
        return generation

    def finished(self) -> Any:
        generation = self.generation(self.context())
        while generation.next() is not None:
            pass
        return generation


def dropped(make: Call) -> Call:
    """Makes a handle and drops it."""
    return lambda: make().__exit__(None, None, None)


def in_turn(*calls: Call) -> Call:
    """One of them each time."""
    following = cycle(calls)
    return lambda: next(following)()


def for_each(make: Callable[[], Call], number: int) -> Call:
    """A call that can be made only once on what it is made on."""
    calls = iter([make() for _ in range(number)])
    return lambda: next(calls)()


def flush(bench: Bench) -> Call:
    return bench.context().flush


def append(bench: Bench) -> Call:
    context = bench.context()
    length = context.length()
    return in_turn(lambda: context.append([7]), lambda: context.truncate(length))


def set_visible(bench: Bench) -> Call:
    context = bench.context()
    return in_turn(
        lambda: context.set_visible(0, 2, False), lambda: context.set_visible(0, 2, True)
    )


def accept(bench: Bench) -> Call:
    constraint = bench.constraint()
    [brace] = bench.model.encode("{", False)
    return in_turn(lambda: constraint.accept([brace]), lambda: constraint.rollback(1))


def wait_any(bench: Bench) -> Call:
    items = [bench.kept.enter_context(_host.events.timer(0)) for _ in range(5)]
    return lambda: _host.events.wait_any(items, None)


def next_chunk(bench: Bench) -> Call:
    context = bench.context()
    forks = [bench.kept.enter_context(context.fork()) for _ in range(bench.number)]
    following = iter(forks)
    return for_each(lambda: bench.generation(next(following)).next, bench.number)


def generate(bench: Bench) -> Call:
    context = bench.context()
    return dropped(lambda: _host.inference.generate(context, NEW_TOKENS, None, None))


def forward_pass(bench: Bench) -> Call:
    context = bench.context()
    return dropped(lambda: _host.inference.ForwardPass(context))


def sample(bench: Bench) -> Call:
    context = bench.context()

    def make() -> Call:
        one = bench.kept.enter_context(_host.inference.ForwardPass(context))
        return lambda: one.sample(0, '{"temperature": 0}')

    return for_each(make, bench.number)


def pull(bench: Bench) -> Call:
    topic = f"calls-{_host.runtime.instance_id()}"
    puller = bench.kept.enter_context(_host.messaging.pull(topic))
    return in_turn(lambda: _host.messaging.push(topic, TEXT), lambda: puller.next(None))


def get(bench: Bench) -> Call:
    _host.storage.set("key", TEXT.encode())
    return lambda: _host.storage.get("key")


CASES: dict[str, Callable[[Bench], Call]] = {
    "an empty loop": lambda bench: lambda: None,
    "runtime.instance-id": lambda bench: _host.runtime.instance_id,
    "runtime.budget": lambda bench: _host.runtime.budget,
    "models.model.info": lambda bench: bench.model.info,
    "models.model.encode, 44 characters": lambda bench: partial(bench.model.encode, TEXT, False),
    "models.model.decode": lambda bench: partial(bench.model.decode, bench.tokens, False),
    "models.model.token-bytes": lambda bench: partial(bench.model.token_bytes, 100),
    "contexts.context.create, drop": lambda bench: dropped(
        lambda: _host.contexts.Context.create(bench.model)
    ),
    "contexts.context.fork, drop": lambda bench: dropped(bench.context().fork),
    "contexts.context.length": lambda bench: bench.context().length,
    "contexts.context.tokens, 8": lambda bench: partial(bench.context().tokens, 0, 8),
    "contexts.context.append, truncate": append,
    "contexts.context.set-visible": set_visible,
    "contexts.context.flush, computed": flush,
    "constraints.constraint.accept, rollback": accept,
    "constraints.constraint.complete": lambda bench: bench.constraint().complete,
    "constraints.constraint.mask": lambda bench: bench.constraint().mask,
    "constraints.constraint.fork, drop": lambda bench: dropped(bench.constraint().fork),
    "events.waitable.ready": lambda bench: bench.kept.enter_context(_host.events.timer(0)).ready,
    "events.wait-any, 5 of them": wait_any,
    "events.timer, drop": lambda bench: dropped(lambda: _host.events.timer(0)),
    "inference.generate, drop": generate,
    "inference.generation.next, 16 tokens": next_chunk,
    "inference.generation.finish": lambda bench: bench.finished().finish,
    "inference.generation.usage": lambda bench: bench.finished().usage,
    "inference.forward-pass, drop": forward_pass,
    "inference.forward-pass.sample": sample,
    "session.send, 44 characters": lambda bench: partial(_host.session.send, TEXT),
    "messaging.push, subscription.next": pull,
    "storage.get": get,
}


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    name = arguments.text("function")
    number = arguments.integer("calls", minimum=1)
    arguments.finish()

    with ExitStack() as kept:
        call = CASES[name](Bench(number, kept))
        session.send("ready")
        session.receive()
        begun, wall = time.perf_counter(), time.time()
        for _ in range(number):
            call()
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "begun_s": wall, "ended_s": time.time()}
