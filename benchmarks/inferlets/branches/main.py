"""Computes one context, forks it, and lets all forks decode together; says how long each took."""

import time
from typing import Any

from inferlet import Arguments, Context, Model


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    length = arguments.integer("length", minimum=1)
    branches = arguments.integer("branches", minimum=1)
    new_tokens = arguments.integer("new_tokens", minimum=1)
    seed = arguments.integer("seed", minimum=1)
    arguments.finish()

    model = Model.open()
    with Context(model) as root:
        root.append(made_up(length, seed, model.info.vocab_size))
        begun = time.perf_counter()
        root.flush()
        flushed = time.perf_counter()
        forks = [root.fork() for _ in range(branches)]
        forked = time.perf_counter()
        generations = [
            fork.generate(max_tokens=new_tokens, temperature=0, ignore_eos=True, chunk_tokens=0)
            for fork in forks
        ]
        num_tokens = sum(len(generation.collect().tokens) for generation in generations)
        ended = time.perf_counter()
        for fork in forks:
            fork.close()
    return {
        "prefill_s": flushed - begun,
        "fork_s": forked - flushed,
        "decode_s": ended - forked,
        "num_tokens": num_tokens,
    }


def made_up(length: int, seed: int, vocab: int) -> list[int]:
    """Token ids that look random, and are others for every seed."""
    tokens = []
    for _ in range(length):
        seed = (seed * 48271) % 2147483647
        tokens.append(seed % vocab)
    return tokens
