"""One daemon per runtime directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pie_daemon.listener.lock import AlreadyRunning, acquire

HOLDER = """
import sys, pathlib, signal
from pie_daemon.listener.lock import acquire
lock = acquire(pathlib.Path(sys.argv[1]))
print("held", flush=True)
signal.pause()
"""


def test_a_second_one_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    """The refusal names the process that holds the lock and the way out."""
    lock = acquire(tmp_path / "run")
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}.*PIE_RUNTIME_DIR") as raised:
        acquire(tmp_path / "run")
    assert (raised.value.code, raised.value.pid) == ("already-exists", os.getpid())
    lock.release()
    acquire(tmp_path / "run").release()


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    """The lock of a process that was killed is free at once."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunning) as raised:
            acquire(tmp_path)
        assert raised.value.pid == holder.pid
        holder.send_signal(signal.SIGKILL)
    acquire(tmp_path).release()


def test_the_directory_is_private(tmp_path: Path) -> None:
    """Nobody else can reach what lies in a runtime directory that the daemon has made."""
    acquire(tmp_path / "new").release()
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    assert (tmp_path / "new" / "pie.lock").stat().st_mode & 0o077 == 0
