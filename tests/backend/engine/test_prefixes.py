"""Prompts on the engine that begin with pages that others have computed."""

from __future__ import annotations

from collections.abc import Callable

from pie_backend.engine.engine import Engine
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.policy import FollowTheFirst
from pie_daemon.scheduler.state import SchedulerState
from support.checkpoints import Checkpoint, prompts

NUM_TOKENS = 24


def generate(state: SchedulerState, engine: Engine, group: list[list[int]]) -> list[list[int]]:
    """All of them at once, each on a context that is dropped at the end."""
    contexts = [state.create_context("one") for _ in group]
    for context, prompt in zip(contexts, group, strict=True):
        state.append(context, prompt)
    params = GenerateParams(max_tokens=NUM_TOKENS, chunk_tokens=0)
    requests = [state.generate(context, params) for context in contexts]
    while (batch := state.decide()) is not None:
        state.complete(engine.execute(batch))
        state.check()
    chunks = [state.take(request) for request in requests]
    for context in contexts:
        state.drop_context(context)
    return [chunk.tokens for chunk in chunks if chunk is not None]


def test_tokens_are_those_of_the_whole_prompt(
    qwen3: Checkpoint, open_engine: Callable[..., Engine]
) -> None:
    """Three rounds of prompts with common beginnings, in a pool that evicts: as transformers."""
    engine = open_engine(qwen3, kv_pages=40)
    config = SchedulerConfig(max_batch_tokens=48)
    state = SchedulerState(engine.info, config, lambda token: b"", lambda: 0.0, FollowTheFirst(16))
    common = prompts(3)[-1]
    tails = [[n] * (1 + 3 * n) for n in range(1, 7)]
    group = [common + tail for tail in tails] + [common[:40] + tail for tail in tails]
    qwen3.generate_all(group)
    expected = [qwen3.generate(prompt, NUM_TOKENS) for prompt in group]

    for _ in range(3):
        found = []
        for start in range(0, len(group), 4):
            found += generate(state, engine, group[start : start + 4])
        assert expected == found

    assert state.counters.prefix_hit_rate > 0.5
    assert len({token for tokens in expected for token in tokens}) > 20
