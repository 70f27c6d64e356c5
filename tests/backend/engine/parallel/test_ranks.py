"""Ranks live and die together, and a model that they cannot divide is refused before any starts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import psutil
import pytest
import torch

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig, Batch, Row, Sample, Sampling
from pie_backend.create import create_backend
from pie_backend.engine.devices.choose import choose_device
from pie_backend.engine.engine import Engine
from pie_backend.engine.parallel.engine import ParallelEngine
from pie_backend.engine.weights import Checkpoint as Weights
from pie_backend.process import ProcessBackend
from support.checkpoints import Checkpoint, Recipe
from support.waiting import until

OpenEngine = Callable[..., Engine]
OpenTeam = Callable[..., ParallelEngine]
HANG_S = 60.0
_SHORT = timedelta(seconds=2)
BATCH = Batch(0, [Row([1, 2, 3], 0, [0], [Sample(2, Sampling())])])


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_rank_is_told_by_its_number(qwen3: Checkpoint, open_team: OpenTeam) -> None:
    """At the next step, and at every later one; no process is left."""
    engine = open_team(qwen3)
    [pid] = engine.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BackendError, match=rf"rank 1 {pid} was killed by SIGKILL; was it out of"):
        engine.execute(BATCH)
    with pytest.raises(BackendError):
        engine.execute(BATCH)
    assert is_gone(pid)


@pytest.mark.slow
def test_one_of_three_takes_the_others_with_it(tmp_path: Path, open_team: OpenTeam) -> None:
    """Killed while the others wait for it in the middle of a step."""
    changes = {"num_key_value_heads": 3, "intermediate_size": 150}
    checkpoint = Recipe("three", "LlamaForCausalLM", changes).build(tmp_path)
    engine = open_team(checkpoint, tensor_parallel=3)
    first, second = engine.pids
    os.kill(second, signal.SIGSTOP)
    caught: list[BaseException] = []

    def execute() -> None:
        try:
            engine.execute(BATCH)
        except BackendError as error:
            caught.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    os.kill(second, signal.SIGKILL)
    thread.join(HANG_S)
    assert not thread.is_alive()
    assert "SIGKILL" in str(caught[0])
    assert is_gone(first)
    assert is_gone(second)


def test_a_rank_that_stands_still_is_given_up(qwen3: Checkpoint, open_team: OpenTeam) -> None:
    """Nobody waits for ever; closing kills it."""
    engine = open_team(qwen3)
    [pid] = engine.pids
    engine._engine._cache.team._group.set_timeout(_SHORT)  # type: ignore[attr-defined]
    for peer in engine._peers._peers:
        peer.channel.set_patience(_SHORT.total_seconds())
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(BackendError, match=rf"rank 1 {pid} has not answered"):
        engine.execute(BATCH)
    assert is_gone(pid)


def test_ranks_end_with_their_worker(qwen3: Checkpoint) -> None:
    """When the worker of a daemon is killed outright, or closed, its peers go too."""
    config = BackendConfig(name="t", path=str(qwen3.path), kv_pages=4, tensor_parallel=2)
    for end in (lambda backend: os.kill(backend.pid, signal.SIGKILL), ProcessBackend.close):
        backend = create_backend(config)
        assert isinstance(backend, ProcessBackend)
        assert 2 == backend.info.tensor_parallel
        [peer] = psutil.Process(backend.pid).children()
        end(backend)
        until(lambda pid=peer.pid: is_gone(pid))
        backend.close()


def test_a_worker_tells_which_rank_was_lost(qwen3: Checkpoint) -> None:
    """In the daemon the error says the same as inside the worker."""
    config = BackendConfig(name="t", path=str(qwen3.path), kv_pages=4, tensor_parallel=2)
    backend = create_backend(config)
    assert isinstance(backend, ProcessBackend)
    [peer] = psutil.Process(backend.pid).children()
    peer.kill()
    with pytest.raises(BackendError, match=r"rank 1 .* SIGKILL"):
        backend.execute(BATCH)
    backend.close()


def test_all_ranks_are_told_what_rank_zero_refuses(qwen3: Checkpoint, open_team: OpenTeam) -> None:
    """A batch that makes no sense ends all of them with the reason and not with a lost rank."""
    engine = open_team(qwen3, kv_pages=4)
    with pytest.raises(BackendError, match="step 7, row 0: pages are outside"):
        engine.execute(Batch(7, [Row([1], 0, [9])]))
    assert all(map(is_gone, engine.pids))


@pytest.mark.parametrize("degree", [3, 4])
def test_a_degree_that_does_not_divide(qwen3: Checkpoint, degree: int) -> None:
    """It is refused with the model's numbers and the degrees that do, and nothing is started."""
    before = {child.pid for child in psutil.Process().children()}
    config = BackendConfig(name="t", path=str(qwen3.path), placement="inline")
    with pytest.raises(BackendError) as refused:
        create_backend(_with_degree(config, degree))
    assert (
        f"backend.tensor_parallel={degree} does not divide this model: 6 heads, 2 KV heads, "
        "160 numbers inside an MLP; allowed: 1, 2"
    ) == str(refused.value)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_degrees_that_mean_nothing() -> None:
    """None at all, and several of a backend that has no model."""
    dummy = BackendConfig(name="t", kind="dummy", path="")
    with pytest.raises(BackendError, match="tensor_parallel is 0; expected at least 1"):
        create_backend(_with_degree(dummy, 0))
    with pytest.raises(BackendError, match=r"backend\.kind=dummy has none"):
        create_backend(_with_degree(dummy, 2))


def test_ranks_are_processes_on_cpus(qwen3: Checkpoint) -> None:
    """Other devices are refused by name, and `auto` says why it takes the processor."""
    config = BackendConfig(name="t", path=str(qwen3.path), device="cuda", tensor_parallel=2)
    with pytest.raises(
        BackendError, match=r"backend\.device=cuda takes backend\.tensor_parallel=1"
    ):
        choose_device(config)
    chosen = choose_device(msgspec.structs.replace(config, device="auto"))
    assert ("cpu", "auto: ranks run on CPUs only, so far") == (chosen.device.name, chosen.why)


def _with_degree(config: BackendConfig, degree: int) -> BackendConfig:
    return msgspec.structs.replace(config, tensor_parallel=degree)


def test_a_rank_that_cannot_be_built_says_why(qwen3: Checkpoint, open_team: OpenTeam) -> None:
    """Too little memory is told with the pages of all ranks, and no process stays."""
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(BackendError, match=r"backend\.kv_pages .* pages fit"):
        open_team(qwen3, kv_pages=10**12)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_sizes_are_those_of_all_ranks(
    qwen3: Checkpoint, open_engine: OpenEngine, open_team: OpenTeam
) -> None:
    """What the scheduler is told is what one process would tell, its degree aside."""
    one, two = (
        build(qwen3, kv_pages=10, host_pages=3, device="cpu") for build in (open_engine, open_team)
    )
    assert msgspec.structs.replace(one.info, tensor_parallel=2) == two.info


def test_only_a_part_of_a_tensor_is_read(qwen3: Checkpoint) -> None:
    """Rows or columns [begin, end), the same as of the whole; a wrong shape is told as always."""
    weights = Weights(qwen3.path, torch.float32, torch.device("cpu"))
    name = "model.layers.1.mlp.down_proj.weight"
    whole = weights.take(name, 96, 160)
    assert torch.equal(whole[:, 80:160], weights.take(name, 96, 160, only=(80, 160), dim=1))
    assert torch.equal(whole[48:96], weights.take(name, 96, 160, only=(48, 96)))
    with pytest.raises(BackendError, match=r"shape \[96, 160\]; config.json wants \[96, 80\]"):
        weights.take(name, 96, 80, only=(0, 40), dim=1)
