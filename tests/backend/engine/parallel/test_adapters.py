"""Adapters on several ranks: greedy tokens of PEFT, one size for all, refusals by all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import Batch, Row
from pie_backend.engine.engine import Engine
from pie_backend.engine.parallel.engine import ParallelEngine
from support.adapters import ATTENTION, MLP, change_config, write_adapter
from support.checkpoints import Checkpoint, prompts
from support.driver import Driver
from support.parity import assert_same

OpenEngine = Callable[..., Engine]
OpenTeam = Callable[..., ParallelEngine]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default:tie at token:UserWarning"),
]
SETTINGS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 8, "target_modules": [*ATTENTION, *MLP]},
    {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": r".*\.(layers\.[02]\.self_attn\.k|mlp\.down|layers\.1\.mlp\.up)_proj",
        "rank_pattern": {r"layers\.0\.mlp\.down_proj": 2, "k_proj": 7},
    },
]


def test_side_by_side(checkpoint: Checkpoint, open_team: OpenTeam, tmp_path: Path) -> None:
    """Two adapters and none in one batch, on every architecture, prompts in chunks."""
    engine = open_team(checkpoint)
    references: list[Checkpoint] = [checkpoint]
    digests: list[str | None] = [None]
    for number, settings in enumerate(SETTINGS):
        path = tmp_path / str(number)
        references.append(write_adapter(checkpoint, path, seed=number, **settings))
        digests.append(engine.load_adapter(str(path)).digest)
    driver = Driver(engine)
    asked = [(prompt, number) for prompt in prompts(16)[::4] for number in range(3)]
    sequences = [driver.add(prompt, 24, adapter=digests[number]) for prompt, number in asked]
    for (prompt, number), found in zip(asked, driver.run(sequences, chunk=20), strict=True):
        assert_same(references[number], prompt, found)


def test_sizes_refusals_and_unloading(
    qwen3: Checkpoint, open_engine: OpenEngine, open_team: OpenTeam, tmp_path: Path
) -> None:
    """The size is that of all ranks together, and what does not fit is refused with numbers while
    the ranks go on; what one rank has unloaded all have."""
    write_adapter(qwen3, tmp_path / "one", **SETTINGS[0])
    write_adapter(qwen3, tmp_path / "two", seed=1, **SETTINGS[0])
    alone = open_engine(qwen3).load_adapter(str(tmp_path / "one"))
    engine = open_team(qwen3, adapter_bytes=2 * alone.num_bytes)
    info = engine.load_adapter(str(tmp_path / "one"))
    assert info == engine.load_adapter(str(tmp_path / "one"))
    assert alone.digest == info.digest
    assert alone.num_bytes < info.num_bytes < 2 * alone.num_bytes

    with pytest.raises(AdapterError, match=r"backend\.adapter_mb allows") as refused:
        engine.load_adapter(str(tmp_path / "two"))
    assert ("quota", True) == (refused.value.code, refused.value.no_room)
    change_config(tmp_path / "two", target_modules=["q_proj"])
    with pytest.raises(AdapterError, match="belong to no projection"):
        engine.load_adapter(str(tmp_path / "two"))

    row = Row([1, 2], 0, [0], adapter=info.digest)
    engine.execute(Batch(0, [row]))
    engine.unload_adapter(info.digest)
    with pytest.raises(BackendError, match="which is not loaded"):
        engine.execute(Batch(1, [row]))
