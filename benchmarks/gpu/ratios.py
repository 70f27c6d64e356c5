"""Stage `ratios`: how near to what the hardware can do, and beside `transformers`.

Weights are random numbers made on the device, in the shape of models of 1 and 8 billion parameters:
nothing is written or read.
"""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from benchmarks.gpu.rows import Found, Task
from benchmarks.gpu.setup import Setup, config
from benchmarks.model import Shape, prompts
from pie_backend.batch import Batch, Row, Sample, Sampling
from pie_backend.engine.engine import Engine, assemble
from pie_backend.engine.weights import Checkpoint
from pie_backend.model_dir import resolve

_PAGE_SIZE = 16
_SMALL_BYTES, _LARGE_BYTES = 64 << 20, 4 << 30
_BF16_BYTES = 2


class RandomWeights(Checkpoint):
    """N(0, 0.02), which is as much work as any other numbers."""

    def __init__(self, shape: Shape, place: torch.device) -> None:
        self.place, self.dtype = place, torch.bfloat16
        self._shape = shape

    def num_bytes(self) -> int:
        return self._shape.read_bytes

    def take(self, name: str, *shape: int, **_: object) -> torch.Tensor:
        return torch.randn(shape, dtype=self.dtype, device=self.place) * 0.02


def tasks(setup: Setup) -> list[Task]:
    found = [
        Task("memory", partial(_memory, setup)),
        Task("matrix products", partial(_products, setup)),
    ]
    for shape in setup.shapes:
        found += [
            Task(f"{shape.name}: decode, 1 row", partial(_decode, setup, shape)),
            Task(f"{shape.name}: gap between steps", partial(_gap, setup, shape)),
            Task(f"{shape.name}: prefill", partial(_prefill, setup, shape)),
        ]
        found += [
            Task(f"{shape.name}: tokens/s, {n} rows", partial(_throughput, setup, shape, n))
            for n in setup.widths
        ]
    first = setup.shapes[0]
    found += [
        Task(f"{first.name}: transformers, {n} rows", partial(_transformers, setup, first, n))
        for n in setup.widths
    ]
    return found


@cache
def _bandwidth(setup: Setup) -> float:
    """Bytes a second, read and written, of a copy on the device."""
    num_bytes = _SMALL_BYTES if setup.name == "cpu" else _LARGE_BYTES
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=setup.place)
    target = torch.empty_like(source)
    return 2 * num_bytes / setup.seconds(lambda: target.copy_(source))


@cache
def _product_rate(setup: Setup) -> float:
    """Operations a second of a large product in bfloat16."""
    size = 512 if setup.name == "cpu" else 8192
    a, b = (torch.randn(size, size, device=setup.place).bfloat16() for _ in range(2))
    return float(2 * size**3) / setup.seconds(lambda: a @ b)


def _memory(setup: Setup) -> Found:
    return Found(None, {"GB/s": _bandwidth(setup) / 1e9})


def _products(setup: Setup) -> Found:
    return Found(None, {"TFLOP/s": _product_rate(setup) / 1e12})


_engines: dict[str, Engine] = {}


def _engine(setup: Setup, shape: Shape) -> Engine:
    """One at a time: the next one takes the place of the last."""
    if shape.name not in _engines:
        for other in _engines.values():
            other.close()
        _engines.clear()
        if setup.name == "cuda":
            torch.cuda.empty_cache()
        folder = Path(mkdtemp(prefix="pie-shape-"))
        (folder / "config.json").write_text(json.dumps(shape.config))
        rows = max(setup.widths)
        pages = rows * -(-(setup.prompt_tokens + setup.new_tokens) // _PAGE_SIZE)
        full = config(
            setup, str(folder), dtype="bfloat16", kv_pages=pages + shape.max_context // 16
        )
        weights = RandomWeights(shape, setup.place)
        _engines[shape.name] = assemble(setup.device, full, resolve(full.path), weights)
    return _engines[shape.name]


def _rows(setup: Setup, shape: Shape, num_rows: int, num_tokens: int) -> list[Row]:
    """Prompts on pages of their own, with room for what is drawn."""
    width = -(-(num_tokens + setup.new_tokens) // _PAGE_SIZE)
    return [
        Row(
            prompt, 0, list(range(i * width, (i + 1) * width)), [Sample(num_tokens - 1, Sampling())]
        )
        for i, prompt in enumerate(prompts(num_rows, num_tokens, shape=shape))
    ]


def _fill(engine: Engine, rows: list[Row]) -> list[Row]:
    """Computes the prompts, a few at a time; what decodes after them."""
    return [_next(row, engine.execute(Batch(1, [row])).tokens[0]) for row in rows]


def _next(row: Row, drawn: list[int]) -> Row:
    return Row(drawn, row.start + len(row.tokens), row.pages, [Sample(0, Sampling())])


def _step_s(setup: Setup, engine: Engine, rows: list[Row]) -> float:
    """Seconds of a decode step: the same one again, which costs the same."""
    return setup.seconds(lambda: engine.execute(Batch(1, rows)), times=20)


def _read_bytes(shape: Shape, rows: list[Row]) -> int:
    """Weights, and keys and values of what the rows see."""
    per_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * _BF16_BYTES
    return shape.read_bytes + per_token * sum(row.start + 1 for row in rows)


def _decode(setup: Setup, shape: Shape) -> Found:
    engine = _engine(setup, shape)
    rows = _fill(engine, _rows(setup, shape, 1, setup.prompt_tokens))
    seconds = _step_s(setup, engine, rows)
    rate = _read_bytes(shape, rows) / seconds
    values: dict[str, float | str] = {
        "ms": seconds * 1e3,
        "GB/s": rate / 1e9,
        "of memory's": rate / _bandwidth(setup),
    }
    return Found(None, values)


def _throughput(setup: Setup, shape: Shape, num_rows: int) -> Found:
    engine = _engine(setup, shape)
    rows = _fill(engine, _rows(setup, shape, num_rows, setup.prompt_tokens))
    seconds = _step_s(setup, engine, rows)
    rate = _read_bytes(shape, rows) / seconds
    values: dict[str, float | str] = {
        "tokens/s": num_rows / seconds,
        "ms": seconds * 1e3,
        "of memory's": rate / _bandwidth(setup),
    }
    return Found(None, values)


def _prefill(setup: Setup, shape: Shape) -> Found:
    """As many tokens as a batch may hold, in one row."""
    num_tokens = min(2048, shape.max_context // 2)
    row = Row(prompts(1, num_tokens, shape=shape)[0], 0, list(range(num_tokens // _PAGE_SIZE)))
    engine = _engine(setup, shape)
    seconds = setup.seconds(lambda: engine.execute(Batch(1, [row])))
    weights = shape.read_bytes / _BF16_BYTES - shape.vocab * shape.hidden  # no logits are asked for
    attention = 2 * shape.layers * shape.heads * shape.head_dim * num_tokens
    rate = num_tokens * (2 * weights + attention) / seconds
    values: dict[str, float | str] = {
        "tokens/s": num_tokens / seconds,
        "TFLOP/s": rate / 1e12,
        "of products'": rate / _product_rate(setup),
    }
    return Found(None, values)


def _gap(setup: Setup, shape: Shape) -> Found:
    """What of a step of one row the device stands still, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    engine = _engine(setup, shape)
    rows = _fill(engine, _rows(setup, shape, 1, setup.prompt_tokens))
    step_s = _step_s(setup, engine, rows)
    is_gpu = setup.name == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if is_gpu else ProfilerActivity.CPU]) as seen:
        for _ in range(5):
            engine.execute(Batch(1, rows))
    field = "self_device_time_total" if is_gpu else "self_cpu_time_total"
    busy_s = sum(getattr(event, field) for event in seen.key_averages()) / 5e6
    return Found(
        None, {"step ms": step_s * 1e3, "busy ms": busy_s * 1e3, "idle": 1 - busy_s / step_s}
    )


@cache
def _model(setup: Setup, shape: Shape) -> Any:
    import transformers

    for engine in _engines.values():
        engine.close()
    _engines.clear()
    settings = {k: v for k, v in shape.config.items() if k not in ("architectures", "dtype")}
    shaped = transformers.Qwen3Config(**settings)
    with setup.place:
        model: Any = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            shaped, dtype=torch.bfloat16, attn_implementation="paged|sdpa"
        )
    return model.eval()


def _transformers(setup: Setup, shape: Shape, num_rows: int) -> Found:
    """Its continuous batching: prompts and draws of all rows, against the same of the engine."""
    import time

    from transformers import ContinuousBatchingConfig, GenerationConfig

    asked = prompts(num_rows, setup.prompt_tokens, shape=shape)
    pages = num_rows * -(-(setup.prompt_tokens + setup.new_tokens) // _PAGE_SIZE)
    settings: Any = ContinuousBatchingConfig(
        block_size=_PAGE_SIZE, num_blocks=pages + 64, max_batch_tokens=2048
    )
    drawing: Any = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=setup.new_tokens, do_sample=False, eos_token_id=-1
    )

    def run() -> float:
        begun = time.perf_counter()
        made = _model(setup, shape).generate_batch(
            inputs=asked,
            generation_config=drawing,
            continuous_batching_config=settings,
            progress_bar=False,
        )
        assert all(len(one.generated_tokens) == setup.new_tokens for one in made.values())
        return time.perf_counter() - begun

    run()
    seconds = run()
    return Found(None, {"tokens/s": num_rows * setup.new_tokens / seconds, "s": seconds})
