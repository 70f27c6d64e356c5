"""A backend in a child process: its own GIL, its own crash domain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

import pie_backend
from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import AdapterInfo, BackendConfig, BackendInfo, Batch, BatchResult
from pie_backend.channel import (
    AdapterLoaded,
    AdapterRefused,
    AdapterUnloaded,
    Channel,
    Done,
    Failed,
    LoadAdapter,
    Ready,
    Reply,
    UnloadAdapter,
)

_GRACE_S = 2.0
_R = TypeVar("_R", bound=msgspec.Struct)


class ProcessBackend:
    """Implements `Backend` by asking a worker process. Blocks until the worker has its model."""

    def __init__(self, config: BackendConfig) -> None:
        """Raises BackendError with the worker's own words when it cannot build the backend."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs)
        self._channel = Channel(ours)
        self._decoder = msgspec.msgpack.Decoder(Reply)
        self._closed = False
        try:
            self._info = self._handshake(config)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> BackendInfo:
        return self._info

    @property
    def pid(self) -> int:
        return self._process.pid

    def execute(self, batch: Batch) -> BatchResult:
        return self._ask(batch, Done).result

    def load_adapter(self, path: str) -> AdapterInfo:
        return self._ask(LoadAdapter(path), AdapterLoaded).info

    def unload_adapter(self, digest: str) -> None:
        self._ask(UnloadAdapter(digest), AdapterUnloaded)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            # The worker ends when its end of the socket hangs up.
            self._channel.close()
        self._reap()

    def _handshake(self, config: BackendConfig) -> BackendInfo:
        return self._ask(config, Ready).info

    def _ask(self, message: msgspec.Struct, expected: type[_R]) -> _R:
        try:
            self._channel.send(message)
            frame = self._channel.receive()
        except OSError as error:
            raise BackendError(self._obituary()) from error
        if frame is None:
            raise BackendError(self._obituary())
        reply: Reply = self._decoder.decode(frame)
        if isinstance(reply, Failed):
            raise BackendError(reply.message)
        if isinstance(reply, AdapterRefused):
            raise AdapterError(reply.code, reply.message, no_room=reply.no_room)
        if not isinstance(reply, expected):
            raise BackendError(f"the worker answered {reply!r}")
        return reply

    def _obituary(self) -> str:
        if self._closed:
            return "the backend is closed"
        status = self._reap()
        if status < 0:
            name = signal.Signals(-status).name
            hint = "; was it out of memory?" if name == "SIGKILL" else ""
            return f"the worker process {self.pid} was killed by {name}{hint}"
        return f"the worker process {self.pid} ended with status {status}; its stderr says why"

    def _reap(self) -> int:
        try:
            return self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _start(sock: socket.socket) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "pie_backend.worker", str(sock.fileno())]
    # A package that is on the path of this process only must be found by the child as well.
    root = str(Path(pie_backend.__file__).parents[1])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        command,
        pass_fds=[sock.fileno()],
        env={**os.environ, "PYTHONPATH": search},
        stdin=subprocess.DEVNULL,
        # Whatever a library prints belongs into the log, never into the daemon's own output.
        stdout=2,
        # Ctrl-C in the terminal is for the daemon, which then decides about the worker.
        process_group=0,
    )
