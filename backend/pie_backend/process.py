"""A backend in a child process: its own GIL, its own crash domain."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TypeVar

import msgspec

from pie_backend.base import AdapterError, BackendError, Tell
from pie_backend.batch import AdapterInfo, BackendConfig, BackendInfo, Batch, BatchResult
from pie_backend.channel import (
    AdapterLoaded,
    AdapterRefused,
    AdapterUnloaded,
    Done,
    Failed,
    Interrupt,
    LoadAdapter,
    Ready,
    Reply,
    Told,
    UnloadAdapter,
)
from pie_backend.child import Child
from pie_backend.lifeline import Lifeline

_R = TypeVar("_R", bound=msgspec.Struct)


class ProcessBackend:
    """Implements `Backend` by asking a worker process. Blocks until the worker has its model."""

    def __init__(self, config: BackendConfig, lifeline: Lifeline | None = None) -> None:
        """Raises BackendError with the worker's own words when it cannot build the backend."""
        try:
            self._child = Child("pie_backend.worker")
        except OSError as error:
            raise BackendError(f"no worker process can be started: {error}") from error
        self._channel = self._child.channel
        self._decoder = msgspec.msgpack.Decoder(Reply)
        self._closed = False
        if lifeline is not None:
            lifeline.hold(self._child.kill)
        try:
            self._info = self._handshake(config)
            if lifeline is not None:
                self._child.watch(partial(self._report, lifeline))
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> BackendInfo:
        return self._info

    @property
    def pid(self) -> int:
        return self._child.pid

    def execute(self, batch: Batch) -> BatchResult:
        return self._ask(batch, Done).result

    def execute_telling(self, batch: Batch, tell: Tell) -> BatchResult:
        return self._ask(batch, Done, tell).result

    def interrupt(self, step: int) -> None:
        # A worker that is gone has nothing to interrupt; who waits for its answer hears of it.
        with contextlib.suppress(OSError):
            self._channel.send(Interrupt(step))

    def load_adapter(self, path: str) -> AdapterInfo:
        return self._ask(LoadAdapter(path), AdapterLoaded).info

    def unload_adapter(self, digest: str) -> None:
        self._ask(UnloadAdapter(digest), AdapterUnloaded)

    def close(self) -> None:
        self._closed = True
        self._child.close()

    def _report(self, lifeline: Lifeline) -> None:
        if not self._closed:
            lifeline.report(self._obituary())

    def _handshake(self, config: BackendConfig) -> BackendInfo:
        return self._ask(config, Ready).info

    def _ask(self, message: msgspec.Struct, expected: type[_R], tell: Tell | None = None) -> _R:
        reply = self._next_reply(message)
        while tell is not None and isinstance(reply, Told):
            tell(reply.result)
            reply = self._next_reply()
        if isinstance(reply, Failed):
            raise BackendError(reply.message)
        if isinstance(reply, AdapterRefused):
            raise AdapterError(reply.code, reply.message, no_room=reply.no_room)
        if not isinstance(reply, expected):
            raise BackendError(f"the worker answered {reply!r}")
        return reply

    def _next_reply(self, message: msgspec.Struct | None = None) -> Reply:
        try:
            if message is not None:
                self._channel.send(message)
            frame = self._channel.receive()
        except OSError as error:
            raise BackendError(self._obituary()) from error
        if frame is None:
            raise BackendError(self._obituary())
        reply: Reply = self._decoder.decode(frame)
        return reply

    def _obituary(self) -> str:
        return "the backend is closed" if self._closed else self._child.obituary()
