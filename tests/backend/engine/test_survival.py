"""Worker processes of the embedded model in float32 that are killed under 32 programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from pie_backend.batch import BackendConfig
from pie_backend.model_dir import resolve
from pie_backend.tokenizer import Tokenizer
from pie_daemon.scheduler.backoff import Backoff
from pie_daemon.scheduler.service import Scheduler
from pie_daemon.scheduler.worker import Worker
from support.adapters import ATTENTION, write_adapter
from support.checkpoints import Checkpoint
from support.load import Load
from support.mortal import MOMENTS, Fate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = resolve("crumb").path
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    folder = tmp_path_factory.mktemp("adapters") / "one"
    write_adapter(Checkpoint(path, model), folder, 1, r=2, target_modules=ATTENTION)
    return folder


@pytest.fixture
def fate() -> Fate:
    return Fate(
        BackendConfig(name="crumb", dtype="float32", page_size=4, kv_pages=400, num_threads=1)
    )


@pytest.fixture
def scheduler(fate: Fate) -> Iterator[Scheduler]:
    worker = Worker.start(fate.build, backoff=Backoff(first_s=0))
    scheduler = Scheduler(worker, Tokenizer("crumb").token_bytes)
    scheduler.start()
    yield scheduler
    scheduler.check()
    scheduler.stop()
    worker.close()


def test_a_death_at_one_step_after_the_other(
    scheduler: Scheduler, fate: Fate, adapter: Path
) -> None:
    """At every fourth step of the load, in turn before, during and after the batch and between two:
    each time the tokens of the undisturbed run."""
    load = Load(scheduler, adapter)
    calm = load.run("calm")
    num_steps = fate.num_batches
    for number, step in enumerate(range(1, num_steps + 1, 4)):
        fate.moment = MOMENTS[number % len(MOMENTS)]
        fate.deaths = {fate.num_batches + step}
        assert calm == load.run(f"{number}-"), f"{fate.moment} batch {step}"
        scheduler.check()
    assert scheduler.stats().worker.deaths >= num_steps // 4 - 2
