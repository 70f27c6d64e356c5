"""A child process of this package that is told things over a socket pair, and how it ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pie_backend
from pie_backend.channel import Channel

_GRACE_S = 2.0


class Child:
    """Runs `python -m MODULE FD`, where FD is its end of the socket pair."""

    def __init__(self, module: str, what: str = "worker process") -> None:
        """Raises: OSError: there is no room for another process."""
        self._what = what
        self._watcher: threading.Thread | None = None
        self._ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(module, theirs)
        except BaseException:
            self._ours.close()
            raise
        self.channel = Channel(self._ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """May be called twice; it ends when its end of the socket hangs up, or is killed."""
        self.hang_up()
        self._reap()
        if self._watcher is not None:
            self._watcher.join()

    def kill(self) -> None:
        """From any thread; whoever waits for an answer is told that it is gone."""
        self._process.kill()

    def watch(self, heard: Callable[[], None]) -> None:
        """`heard` is called by a thread of its own when the other end hangs up, or this one: nobody
        else notices the death of somebody who is not asked anything."""
        sock = self._ours.dup()

        def wait() -> None:
            with sock:
                poll = select.poll()
                poll.register(sock, 0)
                poll.poll()
            heard()

        self._watcher = threading.Thread(target=wait, name=f"watch-{self.pid}", daemon=True)
        self._watcher.start()

    def hang_up(self) -> None:
        """Asks it to end, without waiting for it."""
        self.channel.close()

    def obituary(self) -> str:
        """How it ended; what has hung up but not ended is killed."""
        status = self._reap()
        if status < 0:
            name = signal.Signals(-status).name
            hint = "; was it out of memory?" if name == "SIGKILL" else ""
            return f"the {self._what} {self.pid} was killed by {name}{hint}"
        return f"the {self._what} {self.pid} ended with status {status}; its stderr says why"

    def _reap(self) -> int:
        try:
            return self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _start(module: str, sock: socket.socket) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", module, str(sock.fileno())]
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
