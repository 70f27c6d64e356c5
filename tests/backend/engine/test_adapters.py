"""Greedy tokens of LoRA adapters equal those of PEFT, merged, alone and side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import Batch, Row, Sample, Sampling
from pie_backend.engine.engine import Engine
from pie_backend.engine.ops import linear
from support.adapters import ATTENTION, MLP, change_config, write_adapter
from support.checkpoints import Checkpoint, prompts
from support.driver import Driver
from support.parity import assert_same

OpenEngine = Callable[..., Engine]
pytestmark = pytest.mark.filterwarnings("default:tie at token:UserWarning")

SETTINGS: dict[str, dict[str, Any]] = {
    "all": {"r": 4, "lora_alpha": 8, "target_modules": [*ATTENTION, *MLP]},
    "query-value": {"r": 8, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": r".*\.(layers\.[02]\.self_attn\.k|mlp\.down|layers\.1\.mlp\.up)_proj",
        "rank_pattern": {r"layers\.0\.mlp\.down_proj": 2, "k_proj": 7},
        "alpha_pattern": {"self_attn.k_proj": 11, r"layers\.\d+\.mlp\.up_proj": 3},
    },
    "rslora": {
        "r": 9,
        "lora_alpha": 4,
        "use_rslora": True,
        "rank_pattern": {"gate_proj": 4},
        "target_modules": ["o_proj", "gate_proj", "up_proj"],
    },
}


@dataclass(frozen=True)
class Written:
    path: Path
    merged: Checkpoint


def write_all(base: Checkpoint, root: Path) -> dict[str, Written]:
    return {
        name: Written(root / name, write_adapter(base, root / name, seed=seed, **settings))
        for seed, (name, settings) in enumerate(SETTINGS.items())
    }


@pytest.fixture(scope="session")
def adapters(
    checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Written]:
    return write_all(checkpoint, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="session")
def qwen3_adapters(
    qwen3: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Written]:
    return write_all(qwen3, tmp_path_factory.mktemp("adapters"))


def digest_of(engine: Engine, written: Written) -> str:
    return engine.load_adapter(str(written.path)).digest


def run_mixed(
    engine: Engine,
    base: Checkpoint,
    adapters: dict[str, Written],
    num_tokens: int = 32,
    chunk: int | None = None,
) -> None:
    """Prompts of every adapter and of none in the same batches."""
    driver = Driver(engine, seed=chunk or 0)
    references = [base, *(written.merged for written in adapters.values())]
    digests = [None, *(digest_of(engine, written) for written in adapters.values())]
    chosen = prompts(16)[::2]
    asked = [
        (prompt, (number + shift) % len(digests))
        for shift in (0, 2)
        for number, prompt in enumerate(chosen)
    ]
    for number, reference in enumerate(references):
        reference.generate_all([prompt for prompt, other in asked if other == number])
    sequences = [driver.add(prompt, num_tokens, adapter=digests[n]) for prompt, n in asked]
    for (prompt, number), found in zip(asked, driver.run(sequences, chunk), strict=True):
        assert_same(references[number], prompt, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_alone(
    checkpoint: Checkpoint, adapters: dict[str, Written], open_engine: OpenEngine, name: str
) -> None:
    """Each adapter by itself says what PEFT says, and not what the model itself says."""
    engine = open_engine(checkpoint)
    driver = Driver(engine)
    prompt = prompts(16)[-1]
    digest = digest_of(engine, adapters[name])
    [found] = driver.run([driver.add(prompt, adapter=digest)])
    assert_same(adapters[name].merged, prompt, found)
    assert found != checkpoint.generate(prompt)


@pytest.mark.slow
def test_side_by_side(
    checkpoint: Checkpoint, adapters: dict[str, Written], open_engine: OpenEngine
) -> None:
    """Several adapters and none in one batch, prompts and decoding mixed."""
    run_mixed(open_engine(checkpoint), checkpoint, adapters, chunk=20)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_side_by_side_in_chunks(
    qwen3: Checkpoint, qwen3_adapters: dict[str, Written], open_engine: OpenEngine, chunk: int
) -> None:
    """However prompts are cut."""
    run_mixed(open_engine(qwen3), qwen3, qwen3_adapters, 16, chunk)


def test_without_packed_weights(
    qwen3: Checkpoint,
    qwen3_adapters: dict[str, Written],
    open_engine: OpenEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same where this processor cannot pack."""
    monkeypatch.setattr(linear, "PackedLinear", linear.PlainLinear)
    run_mixed(open_engine(qwen3), qwen3, qwen3_adapters, 8, 30)


def test_without_an_adapter_nothing_changes(
    qwen3: Checkpoint, qwen3_adapters: dict[str, Written], open_engine: OpenEngine
) -> None:
    """A batch without adapters runs the bare decoder, bit for bit, whatever is loaded."""
    engine = open_engine(qwen3)
    row = Row(prompts(16)[-1], 0, list(range(6)), [Sample(89, Sampling(logprobs=5))])
    before = engine.execute(Batch(0, [row]))
    digest_of(engine, qwen3_adapters["all"])
    assert before == engine.execute(Batch(0, [row]))
    assert engine._adapters is not None
    assert engine._adapters._step.tokens == []


def test_bfloat16_stays_near(
    qwen3: Checkpoint, qwen3_adapters: dict[str, Written], open_engine: OpenEngine
) -> None:
    """In bfloat16 the log probability of the likeliest token is close to that of float32."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        engine = open_engine(qwen3, dtype=dtype)
        row = Row(
            prompts(16)[-1],
            0,
            list(range(6)),
            [Sample(i, Sampling(logprobs=0)) for i in range(20)],
            adapter=digest_of(engine, qwen3_adapters["all"]),
        )
        [ones] = engine.execute(Batch(0, [row])).logprobs
        found[dtype] = torch.tensor([one.chosen for one in ones if one is not None])
    assert float((found["float32"] - found["bfloat16"]).abs().mean()) < 0.25


def test_equal_content_is_one_adapter(
    qwen3: Checkpoint, qwen3_adapters: dict[str, Written], open_engine: OpenEngine, tmp_path: Path
) -> None:
    """The digest is that of the content, wherever it lies; other content has another."""
    engine = open_engine(qwen3)
    first = engine.load_adapter(str(qwen3_adapters["all"].path))
    copied = tmp_path / "copy"
    copied.mkdir()
    for file in qwen3_adapters["all"].path.glob("adapter_*"):
        (copied / file.name).write_bytes(file.read_bytes())
    assert first == engine.load_adapter(str(copied))
    assert first.num_bytes == sum(
        part.a.nbytes + part.b.nbytes
        for part in engine._adapters._loaded[first.digest].parts.values()  # type: ignore[union-attr]
    )
    change_config(copied, lora_alpha=9)
    assert first.digest != engine.load_adapter(str(copied)).digest


def test_memory_is_bounded(
    qwen3: Checkpoint, qwen3_adapters: dict[str, Written], open_engine: OpenEngine
) -> None:
    """What has no room says so with numbers, and has it once another is unloaded."""
    sizes = {
        name: open_engine(qwen3).load_adapter(str(written.path)).num_bytes
        for name, written in qwen3_adapters.items()
    }
    engine = open_engine(qwen3, adapter_bytes=sizes["all"])
    digest = digest_of(engine, qwen3_adapters["query-value"])
    with pytest.raises(AdapterError, match=f"takes {sizes['all']} bytes beside") as refused:
        digest_of(engine, qwen3_adapters["all"])
    assert ("quota", True) == (refused.value.code, refused.value.no_room)
    engine.unload_adapter(digest)
    engine.unload_adapter(digest)
    digest_of(engine, qwen3_adapters["all"])
    with pytest.raises(AdapterError, match=r"backend\.adapter_mb allows 1000") as refused:
        digest_of(open_engine(qwen3, adapter_bytes=1000), qwen3_adapters["all"])
    assert ("exhausted", False) == (refused.value.code, refused.value.no_room)


def test_a_row_may_only_name_what_is_loaded(
    qwen3: Checkpoint, qwen3_adapters: dict[str, Written], open_engine: OpenEngine
) -> None:
    """Anything else ends the backend, since tokens would be wrong."""
    engine = open_engine(qwen3)
    digest = digest_of(engine, qwen3_adapters["all"])
    engine.unload_adapter(digest)
    with pytest.raises(BackendError, match="which is not loaded"):
        engine.execute(Batch(0, [Row([1], 0, [0], adapter=digest)]))
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        digest_of(engine, qwen3_adapters["all"])


@pytest.mark.parametrize(
    ("changes", "code", "complaint"),
    [
        ({"target_modules": ["q_proj"]}, "unsupported", r"lora_A\.weight.*which belong to no"),
        (
            {"target_modules": ["q_proj", "v_proj", "up_proj"]},
            "invalid-argument",
            r"lacks .*up_proj\.lora_A.* and 3 more",
        ),
        ({"target_modules": ["c_attn"]}, "unsupported", "names none of q_proj"),
        ({"rank_pattern": {"q_proj": 3}}, "invalid-argument", r"shape \[8, 96\].*want \[3, 96\]"),
    ],
)
def test_files_that_do_not_fit_the_model(
    qwen3: Checkpoint,
    open_engine: OpenEngine,
    tmp_path: Path,
    changes: dict[str, Any],
    code: str,
    complaint: str,
) -> None:
    """Every tensor is used and every module has its own, or the adapter is refused."""
    write_adapter(qwen3, tmp_path, **SETTINGS["query-value"])
    change_config(tmp_path, **changes)
    with pytest.raises(AdapterError, match=complaint) as refused:
        open_engine(qwen3).load_adapter(str(tmp_path))
    assert code == refused.value.code


def test_other_models_are_refused(
    qwen3: Checkpoint, open_engine: OpenEngine, tmp_path: Path
) -> None:
    """Also when what is trained beside the projections comes along."""
    write_adapter(qwen3, tmp_path, target_modules=["q_proj", "lm_head"])
    with pytest.raises(AdapterError, match=r"lm_head\.lora_A\.weight") as refused:
        open_engine(qwen3).load_adapter(str(tmp_path))
    assert "unsupported" == refused.value.code
