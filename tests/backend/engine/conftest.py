from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import transformers

from pie_backend.batch import BackendConfig
from pie_backend.engine.engine import Engine, build_engine
from support.checkpoints import RECIPES, Checkpoint
from support.processors import KINDS, OWN, use

OpenEngine = Callable[..., Engine]


@pytest.fixture(scope="session", autouse=True)
def _quiet_transformers() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=RECIPES, ids=lambda recipe: recipe.name)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """Each architecture and its variants in turn."""
    return request.param.build(tmp_path_factory.mktemp(request.param.name))


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return RECIPES[4].build(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
def open_engine() -> Iterator[OpenEngine]:
    """Builds engines on small pages, in float32 unless told otherwise, and closes them."""
    opened: list[Engine] = []

    def build(checkpoint: Checkpoint, **changes: object) -> Engine:
        settings: dict[str, object] = {"dtype": "float32", "kv_pages": 400, "page_size": 16}
        config = {"name": "test", "path": str(checkpoint.path), "num_threads": 1}
        opened.append(build_engine(BackendConfig(**config, **{**settings, **changes})))  # type: ignore[arg-type]
        return opened[-1]

    yield build
    for engine in opened:
        engine.close()


@pytest.fixture(params=[OWN, *KINDS])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Engines have the kernels of this one, and of those that are not here."""
    use(monkeypatch, request.param)
    return str(request.param)
