"""Checks of folders, the socket's path and the lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

from pie_client import paths
from pie_daemon.cli.doctor.check import Result, ok
from pie_daemon.watcher.notify import file_system

_NEEDED_BYTES = 256 << 20
_SOCKET_PATH_BYTES = 107
"""What the kernel takes as the address of a Unix socket."""


def state_folder() -> Result:
    folder = paths.state_dir()
    problem = _unusable(folder) or _full(folder)
    return problem or ok(f"state in {folder}", path=str(folder))


def runtime_folder() -> Result:
    folder = paths.runtime_dir()
    if (problem := _unusable(folder)) is not None:
        return problem
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return Result(
            "warn",
            f"{folder} can be entered by others",
            "whoever may write to the socket may try to connect",
            f"chmod 700 {folder}",
        )
    return ok(f"socket and lock in {folder}", path=str(folder))


def config_folder() -> Result:
    folder = paths.config_dir()
    if not folder.exists():
        return ok(f"no configuration of your own ({folder} does not exist)", path=str(folder))
    if not os.access(folder, os.R_OK | os.X_OK):
        return Result(
            "fail", f"{folder} cannot be read", "`pie serve` will not start", "chmod u+rx"
        )
    return ok(f"configuration in {folder}", path=str(folder))


def _unusable(folder: Path) -> Result | None:
    """Not creatable, no directory, or not writable."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    why = "the daemon keeps its files there"
    if not place.is_dir():
        return Result("fail", f"{place} is no folder", why, f"move {place} away")
    if not os.access(place, os.W_OK | os.X_OK):
        fix = f"make {place} writable, or set PIE_STATE_DIR and PIE_RUNTIME_DIR to other folders"
        return Result("fail", f"{place} is not writable", why, fix)
    return None


def _full(folder: Path) -> Result | None:
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free_bytes = shutil.disk_usage(place).free
    if free_bytes >= _NEEDED_BYTES:
        return None
    return Result(
        "warn",
        f"{place} has {free_bytes >> 20} MiB left",
        "a compiled program takes up to 100 MiB",
        f"free some space, or set PIE_STATE_DIR; {folder}/compiled may be deleted",
    )


def socket_path() -> Result:
    path = f"{paths.runtime_dir()}/pie.sock"
    num_bytes = len(os.fsencode(path))
    if num_bytes > _SOCKET_PATH_BYTES:
        return Result(
            "fail",
            f"the path of the socket has {num_bytes} bytes: {path}",
            f"the system takes at most {_SOCKET_PATH_BYTES}",
            "set PIE_RUNTIME_DIR to a shorter path, such as /tmp/pie-$USER",
        )
    return ok(f"the path of the socket has {num_bytes} of {_SOCKET_PATH_BYTES} bytes")


def lock() -> Result:
    """Who holds the lock."""
    path = paths.runtime_dir() / "pie.lock"
    if not path.exists():
        return ok("no daemon has run here", held=False)
    with path.open("rb") as file:
        pid = file.read(32).strip().decode(errors="replace")
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return ok(f"held by process {pid}", held=True, pid=int(pid) if pid.isdigit() else None)
    return ok("not held: no daemon runs", held=False)


def watch_folder(folder: Path) -> Result:
    if not folder.is_dir():
        return ok(f"{folder} does not exist yet; the daemon makes it", path=str(folder))
    if not os.access(folder, os.R_OK | os.X_OK):
        why = "no program in it can be seen"
        return Result("fail", f"{folder} cannot be read", why, f"chmod u+rx {folder}")
    if folder.stat().st_mode & stat.S_IWOTH:
        return Result(
            "warn",
            f"everybody on this machine may write to {folder}",
            "each of them can publish programs that run as `system`",
            f"chmod o-w {folder}",
        )
    kind = file_system(folder)
    num_programs = len(list(folder.glob("*.wasm")))
    return ok(f"{num_programs} programs in {folder}", path=str(folder), file_system=kind)
