"""One model as the daemon serves it: its worker, tokenizer and scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_backend.engine.memory import available_bytes
from pie_backend.footprint import footprint_bytes
from pie_backend.tokenizer import Tokenizer
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.host.adapters import AdapterFolder
from pie_daemon.host.context import Model
from pie_daemon.host.turns import TURNS
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.replicas.front import make_scheduler
from pie_daemon.scheduler.replicas.workers import start_workers
from pie_daemon.scheduler.worker import Outcome

_log = structlog.get_logger()
_LAST_BATCH_S = 10.0
REPLACEABLE = {
    "device",
    "dtype",
    "kv_pages",
    "host_pages",
    "adapter_bytes",
    "kernels",
    "weights",
    "num_threads",
    "tensor_parallel",
}
"""What may differ in a backend that takes over."""


@dataclass(frozen=True, slots=True)
class Replaced:
    outcome: Outcome
    reason: str = ""
    """Why it was not applied."""


class ServedModel:
    """Blocks until the model is loaded. `close` ends it."""

    def __init__(
        self,
        config: BackendConfig,
        scheduler: SchedulerConfig,
        limits: Callable[[], LimitsConfig],
        adapters: str | None,
        num_replicas: int = 1,
    ) -> None:
        """Raises: BackendError: what is wrong and what to do."""
        _log.info("loading_model", model=config.name, path=config.path, kind=config.kind)
        self.config = config
        self._workers = start_workers(config, num_replicas)
        try:
            tokenizer = Tokenizer(config.path)
        except BaseException:
            self._close_workers()
            raise
        service = make_scheduler(self._workers, tokenizer.token_bytes, scheduler, TURNS.awake)
        service.start()
        grammars = GrammarCompiler(tokenizer, service.info, limits)
        folder = AdapterFolder.at(adapters)
        self.model = Model(config.name, tokenizer, service, grammars, folder)
        _log.info("model_ready", replicas=num_replicas, **msgspec.structs.asdict(service.info))

    def replace(self, config: BackendConfig) -> Replaced:
        """Has backends of that configuration take over, one replica after the other; blocks until
        they serve, or the old ones do again.

        Where the host's memory has room, each is built while the one before it serves; else that
        one ends first. (So it is, too, where a pool is sized from what is free.)
        """
        fixed = [
            name
            for name in BackendConfig.__struct_fields__
            if name not in REPLACEABLE and getattr(config, name) != getattr(self.config, name)
        ]
        if fixed:
            why = f"{', '.join(fixed)} cannot change under contexts: restart the daemon"
            return Replaced("rejected", why)
        try:
            beside = self._fits_beside(config)
        except (BackendError, OSError, LookupError, ValueError) as error:
            return Replaced("rejected", str(error))
        for number, worker in enumerate(self._workers):
            done = worker.replace(partial(create_backend, config), beside=beside)
            if done.outcome != "applied":
                for earlier in self._workers[:number]:
                    earlier.replace(partial(create_backend, self.config), beside=False)
                return Replaced(done.outcome, done.reason)
        self.config = config
        return Replaced("applied")

    def _fits_beside(self, config: BackendConfig) -> bool:
        """Raises: BackendError: it does not even fit alone."""
        needed = footprint_bytes(config)
        if needed is None:
            return config.kind == "dummy"
        workers, free = self._workers, available_bytes()
        held = sum(footprint_bytes(self.config, one.info.num_pages) or 0 for one in workers)
        if needed * len(workers) > free + held:
            raise BackendError(
                f"{config.name} would take {needed * len(workers)} bytes; {free} are free, and "
                f"what serves now gives back about {held}: lower backend.kv_pages or "
                "backend.host_pages"
            )
        return needed <= free and config.kv_pages is not None

    def close(self) -> None:
        self.model.grammars.close()
        self._close_workers()

    def _close_workers(self) -> None:
        for worker in self._workers:
            worker.close()


def close_all(served: Iterable[ServedModel]) -> None:
    """Schedulers wait for their batches; a worker that hangs is killed by `close` all the same."""
    served = list(served)
    stopping = [threading.Thread(target=one.model.scheduler.stop) for one in served]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join(_LAST_BATCH_S)
    for one in served:
        one.close()
