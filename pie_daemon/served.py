"""One model as the daemon serves it: its worker, tokenizer and scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

import msgspec
import structlog

from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_backend.tokenizer import Tokenizer
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.host.adapters import AdapterFolder
from pie_daemon.host.context import Model
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.service import Scheduler
from pie_daemon.scheduler.worker import Worker

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
    ) -> None:
        """Raises: BackendError: what is wrong and what to do."""
        _log.info("loading_model", model=config.name, path=config.path, kind=config.kind)
        self.config = config
        self._worker = Worker.start(partial(create_backend, config))
        try:
            tokenizer = Tokenizer(config.path)
        except BaseException:
            self._worker.close()
            raise
        service = Scheduler(self._worker, tokenizer.token_bytes, scheduler)
        service.start()
        grammars = GrammarCompiler(tokenizer, self._worker.info, limits)
        folder = AdapterFolder.at(adapters)
        self.model = Model(config.name, tokenizer, service, grammars, folder)
        _log.info("model_ready", **msgspec.structs.asdict(self._worker.info))

    def close(self) -> None:
        self.model.grammars.close()
        self._worker.close()


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
