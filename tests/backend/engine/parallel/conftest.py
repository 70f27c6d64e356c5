from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pie_backend.batch import BackendConfig
from pie_backend.engine.parallel.engine import ParallelEngine
from support.checkpoints import Checkpoint

OpenTeam = Callable[..., ParallelEngine]


@pytest.fixture
def open_team() -> Iterator[OpenTeam]:
    """Builds engines of two ranks, in float32 unless told otherwise, and closes them."""
    opened: list[ParallelEngine] = []

    def build(checkpoint: Checkpoint, **changes: object) -> ParallelEngine:
        settings: dict[str, object] = {"dtype": "float32", "kv_pages": 400, "tensor_parallel": 2}
        config = {"name": "test", "path": str(checkpoint.path), "num_threads": 2}
        opened.append(ParallelEngine(BackendConfig(**config, **{**settings, **changes})))  # type: ignore[arg-type]
        return opened[-1]

    yield build
    for engine in opened:
        engine.close()
