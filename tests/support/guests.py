"""Test programs: built once per content by componentize-py, compiled once, kept in `.cache`."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pie_daemon.host.compile import compile_in_child
from pie_daemon.host.engine import cache_key

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "test-guests"
GUEST = Path(__file__).parent / "guest"


def build_guest(
    source: Path, *, wit: Path | None = None, world: str = "guest", path: tuple[Path, ...] = ()
) -> Path:
    """The component of the program in `source/app.py`; 10 s when it was never built before.

    `wit` defaults to `source/wit`; `path` adds folders whose Python packages the program imports.
    """
    wit = wit or source / "wit"
    target = CACHE / f"{digest_of([source, wit, *path], world)}.wasm"
    return once(target, lambda partial: _componentize(source, wit, world, path, partial))


def compiled(component: Path) -> Path:
    """Machine code of a component; 5 s or more when it was never compiled."""
    digest = hashlib.sha256(component.read_bytes()).hexdigest()
    return once(
        CACHE / f"{cache_key(digest)}.cwasm", lambda partial: compile_in_child(component, partial)
    )


def _componentize(
    source: Path, wit: Path, world: str, path: tuple[Path, ...], target: Path
) -> None:
    tool = shutil.which("componentize-py", path=Path(sys.executable).parent) or "componentize-py"
    folders = [argument for folder in (source, *path) for argument in ("-p", str(folder))]
    command = [tool, "-q", "-d", str(wit), "-w", world, "componentize", *folders]
    done = subprocess.run(
        [*command, "app", "-o", str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"componentize-py: {done.stderr or done.stdout}")


def digest_of(folders: list[Path], world: str) -> str:
    digest = hashlib.sha256(f"{importlib.metadata.version('componentize-py')} {world}".encode())
    for folder in folders:
        for file in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if file.suffix in (".py", ".wit", ".toml") and "__pycache__" not in file.parts:
                digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def once(target: Path, make: Callable[[Path], None]) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if not target.exists():
            partial = target.with_name(f"partial-{target.name}")
            make(partial)
            partial.replace(target)
    return target


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One builder at a time, across test processes."""
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
