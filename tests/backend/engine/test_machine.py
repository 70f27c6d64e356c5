"""The scheduler under random programs on a small model in float32: 2,000 steps.

Every token is compared with what transformers computes from scratch: one pass over the whole
sequence, with a mask that says what each token saw.
"""

from __future__ import annotations

import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from pie_backend.batch import BackendConfig, Sampling
from pie_backend.engine.engine import build_engine
from support.checkpoints import RECIPES, Checkpoint
from support.machine import Machine, Modelled
from support.stepping import Stepper

# Where the reference itself cannot tell two tokens apart, either answer is right.
_TIE = 1e-4


@cache
def checkpoint() -> Checkpoint:
    folder = tempfile.TemporaryDirectory()
    checkpoint = RECIPES[4].build(Path(folder.name))
    _folders.append(folder)
    return checkpoint


_folders: list[tempfile.TemporaryDirectory[str]] = []


@torch.inference_mode()
def logits_after(tokens: list[int], saw: list[Any]) -> torch.Tensor:
    """Of transformers, after the last token."""
    allowed = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
    for index, hidden in enumerate(saw):
        for start, end in hidden:
            allowed[index, start:end] = False
    allowed.fill_diagonal_(True)
    mask = torch.zeros(1, 1, *allowed.shape).masked_fill(~allowed, -torch.inf)
    logits: torch.Tensor = checkpoint().model(torch.tensor([tokens]), attention_mask=mask).logits
    return logits[0, -1]


class FloatMachine(Machine):
    """Greedy throughout: other draws depend on the same logits."""

    def make_stepper(
        self, *, num_pages: int, host_pages: int, page_size: int, **options: Any
    ) -> Stepper:
        config = BackendConfig(
            name="small",
            path=str(checkpoint().path),
            dtype="float32",
            num_threads=1,
            kv_pages=num_pages,
            host_pages=host_pages,
            page_size=page_size,
        )
        stepper = Stepper(backend=build_engine(config), **options)
        stepper.build = lambda: build_engine(config)
        return stepper

    def allowed(self, sampling: Sampling) -> Sampling:
        return Sampling()

    def next_token(self, context: Modelled, length: int, sampling: Sampling) -> int:
        return int(logits_after(context.tokens[:length], context.saw[:length]).argmax())

    def reference(self, context: Modelled, max_tokens: int, sampling: Sampling) -> list[int]:
        tokens, saw = context.tokens.copy(), context.saw.copy()
        # The last token sees what those to come do.
        for _ in range(max_tokens):
            tokens.append(int(logits_after(tokens, saw).argmax()))
            saw.append(context.hidden)
        return tokens[len(context.tokens) :]

    def compare(self, context: Modelled, tokens: list[int]) -> None:
        """A tie is allowed, and reported; from there on it is the engine's own text."""
        for place, (found, wanted) in enumerate(zip(tokens, context.future, strict=False)):
            if found != wanted:
                before = [*context.tokens, *tokens[:place]]
                saw = [*context.saw, *[context.hidden] * place]
                top = logits_after(before, saw).topk(2).values
                assert float(top[0] - top[1]) < _TIE, (found, wanted)
                warnings.warn(f"tie at token {len(before)}", stacklevel=2)
                num_left = len(context.future)
                known = Modelled(0, [*before, found], [*saw, context.hidden], context.hidden)
                rest = self.reference(known, num_left - place - 1, Sampling())
                context.future = [*context.future[:place], found, *rest]
                return self.compare(context, tokens)
        return None


TestFloatMachine = FloatMachine.TestCase
TestFloatMachine.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestFloatMachine = pytest.mark.slow(TestFloatMachine)
