"""Real models in real workers behind one front say what one worker says."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import msgspec
import pytest

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_backend.process import ProcessBackend
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.replicas.front import Replicas, make_scheduler
from pie_daemon.scheduler.replicas.workers import start_workers
from pie_daemon.scheduler.service import Scheduler
from pie_daemon.scheduler.worker import Worker
from support.stepping import letters
from support.waiting import until

CRUMB = BackendConfig(name="crumb", dtype="float32", device="cpu", kv_pages=256, num_threads=1)
PROMPTS = [[5 + family] * 40 + [100 + number] for number in range(6) for family in range(3)]


def say(scheduler: Scheduler | Replicas, number: int) -> list[int]:
    owner = f"p{number}"
    scheduler.add_owner(owner, user="ann")
    context = scheduler.create_context(owner)
    scheduler.append(context, PROMPTS[number])
    params = GenerateParams(max_tokens=24, chunk_tokens=0, ignore_eos=True)
    request = scheduler.generate(context, params, lambda: None)
    until(lambda: scheduler.ready(request))
    chunk = scheduler.take(request)
    assert chunk is not None
    scheduler.drop_owner(owner)
    return chunk.tokens


def say_all(scheduler: Scheduler | Replicas) -> list[list[int]]:
    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(lambda number: say(scheduler, number), range(len(PROMPTS))))


@pytest.mark.slow
def test_the_tokens_of_one_worker_also_when_one_is_killed() -> None:
    """Float32, many programs at once; then one worker is killed, and nobody notices."""
    with ExitStack() as stack:
        alone = _started(stack, start_workers(CRUMB, 1))
        expected = say_all(alone)

        workers = start_workers(CRUMB, 2)
        front = _started(stack, workers)
        assert isinstance(front, Replicas)
        assert expected == say_all(front)
        front.check()
        assert all(replica.generated_tokens for replica in front.stats().replicas)

        victim = workers[0].use()
        assert isinstance(victim, ProcessBackend)
        os.kill(victim.pid, signal.SIGKILL)
        assert expected == say_all(front)
        until(lambda: front.stats().replicas[0].worker.state == "serving")
        assert [1, 0] == [one.worker.deaths for one in front.stats().replicas]
        front.check()


def _started(stack: ExitStack, workers: list[Worker]) -> Scheduler | Replicas:
    """Ends with the stack."""
    for worker in workers:
        stack.enter_context(closing(worker))
    scheduler = make_scheduler(workers, letters, SchedulerConfig())
    scheduler.start()
    stack.callback(scheduler.stop)
    return scheduler


def test_what_cannot_be_had_is_refused() -> None:
    """Several in one process; and when one cannot be built none is left."""
    inline = msgspec.structs.replace(CRUMB, placement="inline")
    with pytest.raises(BackendError, match=r"backend\.placement=process"):
        start_workers(inline, 2)
    with pytest.raises(BackendError, match="no model directory"):
        start_workers(msgspec.structs.replace(CRUMB, path="/nowhere"), 2)
    assert 1 == len(start_workers(inline, 1))
