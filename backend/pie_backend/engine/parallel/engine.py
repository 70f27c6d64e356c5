"""The backend that divides a model among ranks: it is rank 0 and asks the others along."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pie_backend.base import AdapterError, BackendError, SinglePasses
from pie_backend.batch import AdapterInfo, BackendConfig, BackendInfo, Batch, BatchResult
from pie_backend.channel import (
    AdapterLoaded,
    AdapterRefused,
    Done,
    LoadAdapter,
    Question,
    Reply,
    UnloadAdapter,
)
from pie_backend.engine.architectures import read_config
from pie_backend.engine.engine import build_engine
from pie_backend.engine.parallel.division import own_part
from pie_backend.engine.parallel.group import join
from pie_backend.engine.parallel.peers import Peers
from pie_backend.model_dir import resolve

_T = TypeVar("_T")


class ParallelEngine(SinglePasses):
    """Implements `Backend`. When a rank is lost, so are all: no later call can succeed."""

    def __init__(self, config: BackendConfig) -> None:
        """Raises BackendError when the model cannot be divided so, or a rank cannot be built."""
        own_part(read_config(resolve(config.path)), config.tensor_parallel)
        self._peers = Peers(config)
        self._loaded: set[str] = set()
        try:
            with self._peers.explaining():
                team = join(self._peers.meeting, 0, config.tensor_parallel)
                self._engine = build_engine(config, team)
            self._peers.replies()
        except BaseException:
            self._peers.close()
            raise
        self._peers.forget_meeting()

    @property
    def info(self) -> BackendInfo:
        return self._engine.info

    @property
    def pids(self) -> list[int]:
        """Of the processes of ranks 1, 2, ..."""
        return self._peers.pids

    def execute(self, batch: Batch) -> BatchResult:
        result, replies = self._together(batch, lambda: self._engine.execute(batch))
        failures = [one.result.file_failure for one in replies if isinstance(one, Done)]
        failure = next(filter(None, [result.file_failure, *failures]), None)
        if failure == result.file_failure:
            return result
        return BatchResult(batch.step, result.tokens, file_failure=failure)

    def load_adapter(self, path: str) -> AdapterInfo:
        own, replies = self._together(LoadAdapter(path), lambda: self._try_to_load(path))
        answers = [own, *replies]
        infos = [one.info for one in answers if isinstance(one, AdapterLoaded)]
        digests = {info.digest for info in infos}
        if len(infos) == len(answers) and len(digests) == 1:
            self._loaded |= digests
            return infos[0]
        for digest in digests - self._loaded:
            self.unload_adapter(digest)
        refused = [one for one in answers if isinstance(one, AdapterRefused)]
        if not refused:
            raise AdapterError("internal", f"{path} has changed while it was read; try again")
        raise AdapterError(refused[0].code, refused[0].message, no_room=refused[0].no_room)

    def _try_to_load(self, path: str) -> Reply:
        try:
            return AdapterLoaded(self._engine.load_adapter(path))
        except AdapterError as error:
            return AdapterRefused(error.code, error.message, error.no_room)

    def unload_adapter(self, digest: str) -> None:
        self._loaded.discard(digest)
        self._together(UnloadAdapter(digest), lambda: self._engine.unload_adapter(digest))

    def close(self) -> None:
        self._engine.close()
        self._peers.close()

    def _together(self, question: Question, own: Callable[[], _T]) -> tuple[_T, list[Reply]]:
        """What this rank and the others make of a question."""
        try:
            with self._peers.explaining():
                self._peers.ask(question)
                return own(), self._peers.replies()
        except BackendError:
            self.close()
            raise
