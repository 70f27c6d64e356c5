"""One daemon per runtime directory: ZeroMQ would let a second one steal the socket silently."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pie_daemon.errors import PieError


class AlreadyRunning(PieError):
    """Another daemon holds the lock; `pid` is None when it could not be read."""

    def __init__(self, path: Path, pid: int | None) -> None:
        who = f"pid {pid}" if pid is not None else "its pid is not readable"
        super().__init__(
            "already-exists",
            f"a Pie daemon already runs here ({who} holds {path}); stop it first, or set "
            "PIE_RUNTIME_DIR to run a second one beside it",
        )
        self.pid = pid


class DaemonLock:
    """An flock held until `release` or the end of the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Takes it at once; AlreadyRunning when it is held."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _read_pid(descriptor)
            os.close(descriptor)
            raise AlreadyRunning(path, pid) from error
        self._descriptor: int | None = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """The file stays: removing it would let two daemons lock two files of the same name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def acquire(runtime_dir: Path) -> DaemonLock:
    """The lock that stands for the daemon of this runtime directory."""
    return DaemonLock(runtime_dir / "pie.lock")


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
