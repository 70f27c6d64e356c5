"""Decodes greedily in one of several ways, and says how long that took."""

import time
from typing import Any

from inferlet import Arguments, Context, ForwardPass, Model, session


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    decode = WAYS[arguments.text("way")]
    prompt = arguments.text("prompt")
    new_tokens = arguments.integer("new_tokens", minimum=1)
    arguments.finish()

    model = Model.open()
    with Context(model) as context:
        context.append(model.encode(prompt))
        context.flush()
        # All programs begin to decode at the same time: when their client says so.
        session.send("ready")
        session.receive()
        begun = time.perf_counter()
        tokens = decode(context, new_tokens)
        return {"tokens": tokens, "decode_s": time.perf_counter() - begun}


def generate(context: Context, new_tokens: int) -> list[int]:
    options = {"temperature": 0.0, "ignore_eos": True, "max_tokens": new_tokens}
    with context.generate(chunk_tokens=0, **options) as generation:
        return generation.collect().tokens


def stream(context: Context, new_tokens: int) -> list[int]:
    options = {"temperature": 0.0, "ignore_eos": True, "max_tokens": new_tokens}
    with context.generate(chunk_tokens=1, **options) as generation:
        for chunk in generation:
            session.send_event("delta", text=chunk.text)
        return generation.tokens


def relay(context: Context, new_tokens: int) -> list[int]:
    options = {"temperature": 0.0, "ignore_eos": True, "max_tokens": new_tokens}
    with context.generate(chunk_tokens=1, **options) as generation:
        return generation.relay().tokens


def steps(context: Context, new_tokens: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < new_tokens:
        tokens.append(context.next_token(tokens[-1:], temperature=0))
    return tokens


def passes(context: Context, new_tokens: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < new_tokens:
        forward = ForwardPass(context, tokens[-1:])
        forward.sample(temperature=0)
        tokens += forward.submit().tokens
    return tokens


WAYS = {
    "generate": generate,
    "stream": stream,
    "relay": relay,
    "steps": steps,
    "passes": passes,
}
