"""One model as the daemon serves it: its worker, tokenizer and scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import msgspec
import structlog

from pie_backend.batch import BackendConfig
from pie_backend.tokenizer import Tokenizer
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.host.adapters import AdapterFolder
from pie_daemon.host.context import Model
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.replicas.front import make_scheduler
from pie_daemon.scheduler.replicas.workers import start_workers

_log = structlog.get_logger()
_LAST_BATCH_S = 10.0


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
        service = make_scheduler(self._workers, tokenizer.token_bytes, scheduler)
        service.start()
        grammars = GrammarCompiler(tokenizer, service.info, limits)
        folder = AdapterFolder.at(adapters)
        self.model = Model(config.name, tokenizer, service, grammars, folder)
        _log.info("model_ready", replicas=num_replicas, **msgspec.structs.asdict(service.info))

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
