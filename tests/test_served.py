"""A model of the daemon whose backend is replaced while it serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import psutil
import pytest

from pie_backend.batch import BackendConfig
from pie_backend.footprint import footprint_bytes
from pie_backend.process import ProcessBackend
from pie_daemon import served as module
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.served import ServedModel, close_all
from support.waiting import until

CONFIG = BackendConfig(name="crumb", dtype="float32", kv_pages=200, num_threads=1)


@pytest.fixture
def served() -> Iterator[ServedModel]:
    served = ServedModel(CONFIG, SchedulerConfig(), LimitsConfig, None)
    yield served
    close_all([served])


def replace(served: ServedModel, **changes: Any) -> module.Replaced:
    return served.replace(msgspec.structs.replace(served.config, **changes))


def generated(served: ServedModel, request: int) -> list[int]:
    scheduler = served.model.scheduler
    until(lambda: scheduler.ready(request))
    chunk = scheduler.take(request)
    assert chunk is not None
    return chunk.tokens


def pid_of(served: ServedModel) -> int:
    backend = served._workers[0].use()
    assert isinstance(backend, ProcessBackend)
    return backend.pid


def start(served: ServedModel) -> int:
    scheduler = served.model.scheduler
    context = scheduler.create_context("one")
    scheduler.append(context, served.model.tokenizer.encode("Once upon a time", False))
    params = GenerateParams(max_tokens=200, chunk_tokens=0, ignore_eos=True)
    return scheduler.generate(context, params, lambda: None)


def test_replicas_one_after_the_other() -> None:
    """Both have the new pool, or both the old one."""
    config = msgspec.structs.replace(CONFIG, kind="dummy")
    served = ServedModel(config, SchedulerConfig(), LimitsConfig, None, 2)
    assert ("applied", "") == astuple(replace(served, kv_pages=90))
    assert [90, 90] == [worker.info.num_pages for worker in served._workers]
    assert "rolled_back" == replace(served, kv_pages=0).outcome
    assert [90, 90] == [worker.info.num_pages for worker in served._workers]
    close_all([served])


@pytest.mark.parametrize("has_room", [True, False])
def test_a_pool_of_another_size(
    served: ServedModel, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens are the same, the facts about the model follow, and the old worker is gone; with
    little memory it goes first."""
    calm = generated(served, start(served))
    if not has_room:
        needed = footprint_bytes(CONFIG)
        assert needed is not None
        monkeypatch.setattr(module, "available_bytes", lambda: needed // 2)
    before = pid_of(served)
    request = start(served)
    assert ("applied", "") == astuple(replace(served, kv_pages=150, host_pages=10))
    assert calm == generated(served, request)
    info = served.model.info
    assert (150, 10, 150) == (info.num_pages, info.num_host_pages, served.config.kv_pages)
    assert before != pid_of(served)
    assert not psutil.pid_exists(before)


def test_another_dtype(served: ServedModel) -> None:
    """A generation begins in one, goes on in the other, and what comes back is as it was."""
    calm = generated(served, start(served))
    request = start(served)
    assert ("applied", "") == astuple(replace(served, dtype="bfloat16"))
    assert "bfloat16" == served.model.info.dtype
    assert 200 == len(generated(served, request))
    assert ("applied", "") == astuple(replace(served, dtype="float32"))
    assert calm == generated(served, start(served))
    served.model.scheduler.check()


def test_what_cannot_be(served: ServedModel) -> None:
    """Too large, of another model, or of a form that there is not: the one that serves stays."""
    outcome, reason = astuple(replace(served, kv_pages=1 << 40))
    assert "rejected" == outcome
    assert "bytes; " in reason
    assert "lower backend.kv_pages" in reason
    outcome, reason = astuple(replace(served, path="/elsewhere", page_size=8))
    assert ("rejected", True) == (outcome, reason.startswith("path, page_size cannot change"))
    outcome, reason = astuple(replace(served, dtype="float8"))
    assert ("rolled_back", True) == (outcome, "float8" in reason)
    assert (200, CONFIG) == (served.model.info.num_pages, served.config)
    assert 200 == len(generated(served, start(served)))


def astuple(replaced: module.Replaced) -> tuple[str, str]:
    return replaced.outcome, replaced.reason
