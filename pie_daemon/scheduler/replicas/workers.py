"""The workers of one model, each with all of it."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_daemon.scheduler.worker import Worker


def start_workers(config: BackendConfig, num_replicas: int) -> list[Worker]:
    """One after the other, so that each sizes its pages by what the ones before it have left.

    Raises:
        BackendError: one cannot be built, or several cannot be had here; none is left running.
    """
    if num_replicas > 1 and config.placement != "process":
        raise BackendError(
            f"backend.replicas={num_replicas} are processes of their own: they take "
            "backend.placement=process"
        )
    with ExitStack() as undo:
        made: list[Worker] = []
        for _ in range(num_replicas):
            made.append(Worker.start(partial(create_backend, config)))
            undo.callback(made[-1].close)
            if num_replicas > 1 and not made[0].info.device.startswith(("cpu", "dummy")):
                raise BackendError(
                    f"backend.replicas={num_replicas} share the CPUs of one machine, so far; "
                    f"backend.device={config.device} takes backend.replicas=1"
                )
        undo.pop_all()
    return made
