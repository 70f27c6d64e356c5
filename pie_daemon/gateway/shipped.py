"""The programs that answer for models, built from the packaged sources where nobody put others."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import structlog

from pie_bakery.build.toolchain import sdk_folder
from pie_daemon.errors import PieError
from pie_daemon.gateway.catalogue import SERVED_BY
from pie_daemon.runtime.programs import SYSTEM, ProgramStore

SOURCES = Path(__file__).parents[1] / "inferlets"
_BUILD = """
import os, pathlib, sys
os.nice(10)
from pie_bakery.build import build
build(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""
_REASON_CHARS = 500
_log = structlog.get_logger()


class Shipped:
    """`provide` blocks, for a minute where nothing was built before; `stop` ends it."""

    def __init__(self, programs: ProgramStore, folder: Path, cache: Path) -> None:
        """`folder`: what lies there is preferred; `cache`: keeps what was built."""
        self._programs = programs
        self._folder = folder
        self._cache = cache
        self._lock = threading.Lock()
        self._building: subprocess.Popen[str] | None = None
        self._stopped = False

    def provide(self) -> None:
        there = {info.name for info in self._programs.programs() if info.namespace == SYSTEM}
        missing = [
            name for name in SERVED_BY.values() if name not in there and not self._is_put(name)
        ]
        for name in missing:
            self._programs.progress(SYSTEM, name, "compiling")
        for name in missing:
            if not self._stopped:
                self._provide(name)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._building is not None:
                self._building.kill()

    def _is_put(self, name: str) -> bool:
        """The operator has one of his own, which the watcher sees to."""
        return (self._folder / f"{name}.wasm").exists()

    def _provide(self, name: str) -> None:
        source = SOURCES / name
        built = self._cache / f"{name}-{_digest(source)}.wasm"
        try:
            if not built.exists():
                _log.info("building_program", program=name, why="it is not in the inferlet folder")
                self._build(source, built)
            if not self._is_put(name):
                self._programs.install(built, SYSTEM, name)
        except (PieError, OSError) as error:
            self._programs.reject(SYSTEM, name, str(error))
            if not self._stopped:
                _log.warning("program_not_built", program=name, reason=str(error))

    def _build(self, source: Path, target: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._stopped:
                raise PieError("closed", "the daemon is shutting down")
            self._building = subprocess.Popen(
                [sys.executable, "-c", _BUILD, str(source), str(target)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        output, _ = self._building.communicate()
        with self._lock:
            status, self._building = self._building.returncode, None
        if status:
            said = output.strip()[-_REASON_CHARS:]
            raise PieError("internal", f"building {source.name} from its source failed: {said}")
        self._drop_older(source.name, target)

    def _drop_older(self, name: str, newest: Path) -> None:
        for older in self._cache.glob(f"{name}-*.wasm"):
            if older != newest:
                older.unlink(missing_ok=True)


def _digest(source: Path) -> str:
    """Of everything that goes into the component: another version of Pie builds anew."""
    digest, sdk = hashlib.sha256(), sdk_folder()
    for files in (source.glob("*.*"), sdk.glob("*.py"), (sdk / "wit").glob("*.wit")):
        for path in sorted(files):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
