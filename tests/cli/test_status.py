"""`pie status`: the numbers of a scheduler as a person reads them."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from pie_backend.batch import BackendConfig
from pie_backend.dummy import DummyBackend, Vocabulary
from pie_client import wire
from pie_daemon.cli import status
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.service import Scheduler
from pie_daemon.scheduler.stats import WorkerStats
from support.command import Command
from support.listening import Listening
from support.waiting import until


def report(tensor_parallel: int = 1, **changed: object) -> wire.Status:
    """Of a scheduler that has served one prompt twice, with some numbers changed."""
    backend = DummyBackend(BackendConfig(name="m", path="", kv_pages=80), Vocabulary())
    scheduler = Scheduler(backend, lambda token: b"x")
    scheduler.start()
    for owner in ("first", "second"):
        context = scheduler.create_context(owner)
        scheduler.append(context, list(range(1, 40)))
        request = scheduler.generate(context, GenerateParams(max_tokens=1), lambda: None)
        until(lambda request=request: scheduler.ready(request))
    stats = {**msgspec.to_builtins(scheduler.stats()), **changed}
    scheduler.stop()
    info = {**msgspec.to_builtins(backend.info), "tensor_parallel": tensor_parallel}
    detail = {
        "models": {"m": {"info": info, "scheduler": stats}},
        "watcher": {"folder": "/inferlets", "mode": "inotify", "error": None},
    }
    return wire.Status(
        server="pie 0.1.0",
        pid=7,
        started_at=time.time() - 7300,
        endpoints=["ipc:///run/pie/pie.sock"],
        sessions=1,
        instances=2,
        programs=3,
        detail=detail,
    )


def test_a_pool_is_a_bar() -> None:
    """Held, cached and empty pages as shares of one line, and in numbers."""
    lines = list(status._lines(report()))

    assert "pie 0.1.0, process 7, up 2h: 1 sessions, 2 instances, 3 programs" == lines[0]
    assert any("4 held (#), 0 cached (+), 76 empty (.) of 80" in line for line in lines)
    assert any("[##......" in line for line in lines)
    assert any("41% found (32 of 78 prompt tokens)" in line for line in lines)
    assert "folder /inferlets: inotify" == lines[-1]


def test_ranks_are_told_where_there_are_several() -> None:
    """Beside the device."""
    assert not any("ranks" in line for line in status._lines(report()))
    assert any("on cpu, 2 ranks" in line for line in status._lines(report(tensor_parallel=2)))


def test_guesses_are_shown_once_there_are_any() -> None:
    """How many tokens speculation guessed, and which part came true."""
    assert not any("guesses" in line for line in status._lines(report()))
    lines = list(status._lines(report(drafted_tokens=40, draft_acceptance=0.75)))
    assert "  guesses   75% of 40 tokens came true" in lines


def test_pressure_is_shown_when_there_was_any() -> None:
    """How many contexts gave up their pages, and what that cost."""
    calm = list(status._lines(report()))
    pressed = list(
        status._lines(
            report(
                suspensions=9,
                suspended_contexts=1,
                host_pages=40,
                used_host_pages=3,
                preemptions=2,
                recomputed_tokens=70,
            )
        )
    )

    assert not any("pressure" in line for line in calm)
    assert (
        "  pressure  1 of 2 contexts suspended, 3 of 40 host pages used; so far "
        "2 generations gave way, 70 tokens computed again"
    ) in pressed


@pytest.mark.parametrize("name", ["failure", "integrity_error"])
def test_a_broken_model_is_named(name: str) -> None:
    """The reason stands beside the numbers, and the exit code tells scripts."""
    broken = report(**{name: "the worker was killed"})

    assert any("BROKEN    the worker was killed" in line for line in status._lines(broken))
    assert ["m: the worker was killed"] == list(status.troubles(broken))
    assert [] == list(status.troubles(report()))


def test_a_worker_that_does_not_come_back_is_told() -> None:
    """Which attempt this is, when the next one comes, and what was wrong; before, how it fared."""
    worker = WorkerStats("restarting", 2, 3, 4.2, "no model directory at /gone", 1.25)
    waiting = report(worker=msgspec.to_builtins(worker))
    lines = list(status._lines(waiting))

    trouble = "restarting the worker, attempt 3, next in 4 s: no model directory at /gone"
    assert f"  BROKEN    {trouble}" in lines
    assert [f"m: {trouble}"] == list(status.troubles(waiting))
    fine = msgspec.structs.replace(worker, state="serving")
    lines = list(status._lines(report(worker=msgspec.to_builtins(fine))))
    assert any("died 2 times" in line and "pause was 1.2 s" in line for line in lines)
    assert not any("BROKEN" in line for line in lines)


def test_status_of_a_listener(pie: Command, server: Listening) -> None:
    """The endpoints on the screen, the whole report as JSON."""
    plain, as_json = pie("status"), pie("status", "--json")

    assert (0, 0) == (plain.code, as_json.code)
    assert server.ipc in plain.out
    assert {"fake": True} == json.loads(as_json.out)["detail"]
