"""Greedy decode throughput: the engine's bare loop beside transformers.generate."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.model import ensure_model, prompts
from pie_backend.base import Backend
from pie_backend.batch import BackendConfig, Batch, Row, Sample, Sampling
from pie_backend.create import create_backend

WIDTHS = (1, 8, 32)
NUM_PROMPT_TOKENS = 128
NUM_NEW_TOKENS = 128
ROUNDS = 3
MODEL_DIR = Path(".cache/bench/qwen3-88m")
PAGE_SIZE = 16
_PAGES_PER_ROW = (NUM_PROMPT_TOKENS + NUM_NEW_TOKENS) // PAGE_SIZE


class BareLoop:
    """Feeds the backend the batches a scheduler would, with nothing around it."""

    def __init__(self, directory: Path, placement: str = "inline") -> None:
        config = BackendConfig(
            name="bench",
            path=str(directory),
            placement=placement,
            page_size=PAGE_SIZE,
            kv_pages=max(WIDTHS) * _PAGES_PER_ROW,
        )
        self._backend: Backend = create_backend(config)

    def tokens_per_s(self, width: int) -> float:
        begun = time.perf_counter()
        self.generate(prompts(width, NUM_PROMPT_TOKENS))
        return width * NUM_NEW_TOKENS / (time.perf_counter() - begun)

    def generate(self, contexts: list[list[int]]) -> list[list[int]]:
        tables = [
            list(range(i * _PAGES_PER_ROW, (i + 1) * _PAGES_PER_ROW)) for i in range(len(contexts))
        ]
        greedy = Sampling()
        generated: list[list[int]] = [[] for _ in contexts]
        inputs, start = contexts, 0
        for step in range(NUM_NEW_TOKENS):
            draw = [Sample(len(inputs[0]) - 1, greedy)]
            rows = [Row(t, start, table, draw) for t, table in zip(inputs, tables, strict=True)]
            start += len(inputs[0])
            inputs = self._backend.execute(Batch(step, rows)).tokens
            for row, token in zip(generated, inputs, strict=True):
                row += token
        return generated

    def close(self) -> None:
        self._backend.close()


class TransformersGenerate:
    """The same model, prompts and lengths through transformers."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForCausalLM

        self._model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)

    def tokens_per_s(self, width: int) -> float:
        contexts = prompts(width, NUM_PROMPT_TOKENS)
        begun = time.perf_counter()
        self.generate(contexts)
        return width * NUM_NEW_TOKENS / (time.perf_counter() - begun)

    def generate(self, contexts: list[list[int]]) -> list[list[int]]:
        ids = torch.tensor(contexts)
        out = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NUM_NEW_TOKENS,
            min_new_tokens=NUM_NEW_TOKENS,
            do_sample=False,
        )
        found: list[list[int]] = out[:, NUM_PROMPT_TOKENS:].tolist()
        return found


def bare_loop(width: int) -> float:
    """Tokens per second; one warm run, then one that counts."""
    loop = BareLoop(ensure_model(MODEL_DIR))
    loop.tokens_per_s(width)
    measured = loop.tokens_per_s(width)
    loop.close()
    return measured


def transformers_generate(width: int) -> float:
    """Tokens per second; one warm run, then one that counts."""
    reference = TransformersGenerate(ensure_model(MODEL_DIR))
    reference.tokens_per_s(width)
    return reference.tokens_per_s(width)


def compare(
    contenders: Mapping[str, Callable[[int], float]], widths: tuple[int, ...], rounds: int
) -> dict[str, dict[int, float]]:
    """Median tokens per second of each contender at each width.

    The machine's speed drifts, so contenders take turns, in an order that alternates by round.
    """
    samples: dict[str, dict[int, list[float]]] = {
        name: {width: [] for width in widths} for name in contenders
    }
    for width in widths:
        for number in range(-1, rounds):
            turn = list(contenders)[:: 1 if number % 2 else -1]
            for name in turn:
                measured = contenders[name](width)
                # The round before the first only warms up.
                if number >= 0:
                    samples[name][width].append(measured)
    return {
        name: {width: statistics.median(values) for width, values in by_width.items()}
        for name, by_width in samples.items()
    }


def table(medians: dict[str, dict[int, float]], reference: str) -> Table:
    shown = Table(
        title="greedy tokens/s, 88M Qwen3 shape, bf16, 128 in, 128 out "
        f"({torch.get_num_threads()} threads; medians; ratio to {reference})"
    )
    shown.add_column("")
    for width in WIDTHS:
        shown.add_column(f"{width} rows", justify="right")
    for name, by_width in medians.items():
        cells = [f"{by_width[w]:.0f} ({by_width[w] / medians[reference][w]:.2f}x)" for w in WIDTHS]
        shown.add_row(name, *cells)
    return shown


def main() -> None:
    ensure_model(MODEL_DIR)
    loop = BareLoop(MODEL_DIR)
    reference = TransformersGenerate(MODEL_DIR)
    contenders = {
        "transformers.generate": reference.tokens_per_s,
        "engine, bare loop": loop.tokens_per_s,
    }
    medians = compare(contenders, WIDTHS, ROUNDS)
    Console(file=sys.stdout).print(table(medians, "transformers.generate"))
    loop.close()


if __name__ == "__main__":
    main()
