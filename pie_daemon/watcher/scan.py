"""What lies in the inferlet folder right now: one stamp for each program, no file is opened."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAM, SIDECAR = ".wasm", ".toml"
MAX_SIDECAR_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Stamp:
    """Two equal stamps mean that nobody has written in between."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Found:
    """One program file, with the manifest beside it if there is one."""

    name: str
    path: Path
    stamp: Stamp
    sidecar: Stamp | None = None
    """Of `NAME.toml`; both files together are one version."""
    refusal: str | None = None
    """Why it is not even opened."""

    @property
    def version(self) -> tuple[Stamp, Stamp | None]:
        return self.stamp, self.sidecar

    @property
    def sidecar_path(self) -> Path | None:
        return None if self.sidecar is None else self.path.with_suffix(SIDECAR)

    @property
    def changed_at_ns(self) -> int:
        """Unix time of the last write to either file, as the file system tells it."""
        return max(stamp.mtime_ns for stamp in self.version if stamp is not None)


Scan = Callable[[], dict[str, Found]]


def scan(folder: Path, max_bytes: int) -> dict[str, Found]:
    """Every program of the folder by name.

    Hidden files, directories, sockets and everything not called `*.wasm` are no programs: editors,
    copying programs and browsers write under such names first.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries}
    root = folder.resolve()
    return {found.name: found for found in _programs(root, names, max_bytes)}


def _programs(root: Path, names: set[str], max_bytes: int) -> Iterator[Found]:
    for file_name in sorted(names):
        if file_name.startswith(".") or not file_name.endswith(PROGRAM):
            continue
        path = root / file_name
        stamp = stamp_of(path)
        if stamp is None:
            continue
        name = file_name.removesuffix(PROGRAM)
        sidecar = stamp_of(root / f"{name}{SIDECAR}") if f"{name}{SIDECAR}" in names else None
        refusal = _refusal(root, path, stamp, max_bytes)
        if refusal is None and sidecar is not None:
            refusal = _refusal(root, path.with_suffix(SIDECAR), sidecar, MAX_SIDECAR_BYTES)
        yield Found(_printable(name), path, stamp, sidecar, refusal)


def stamp_of(path: Path) -> Stamp | None:
    """None for what is gone again, or is no regular file behind its links."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _refusal(root: Path, path: Path, stamp: Stamp, max_bytes: int) -> str | None:
    if not _NAME.fullmatch(path.stem):
        return "a name has letters, digits, `.`, `_` and `-`, and starts with a letter or digit"
    if not path.resolve().is_relative_to(root):
        return "the symbolic link leaves the inferlet folder; copy the file instead"
    if stamp.size_bytes == 0:
        return f"{path.name} is empty"
    if stamp.size_bytes > max_bytes:
        return f"{path.name} has {stamp.size_bytes} bytes; at most {max_bytes} are accepted"
    return None


def _printable(name: str) -> str:
    """Names are shown and sent; whatever the file system allowed, they are clean text."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
