"""Compiled components: compiled once in a child process, cached on disk, loaded once a process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pie_daemon.errors import PieError
from pie_daemon.host import engine as host_engine
from pie_daemon.host.abi import Linker, build_linker, unknown_imports
from pie_daemon.host.compile import compile_in_child
from pie_daemon.host.context import HostContext
from pie_daemon.host.interfaces import INTERFACES
from pie_daemon.host.libraries import Libraries
from pie_daemon.host.run import Outcome, run_component
from pie_daemon.host.wasi import INTERFACES as WASI_INTERFACES

_MAX_LOADED = 64
_MAX_CACHE_BYTES = 4 << 30
"""About three hundred programs in Python."""
_KEEP_S = 3600.0
"""A file that was used since then is not removed, however full the cache is."""
_INTERFACES = (*INTERFACES, *WASI_INTERFACES)


@dataclass(frozen=True, slots=True)
class Loaded:
    component: Any
    linker: Linker


class Sandbox:
    """Thread-safe; compiles one component at a time."""

    def __init__(self, cache_dir: Path, compile_timeout_s: float) -> None:
        self.engine = host_engine.Engine()
        self._cache_dir = cache_dir
        self._cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._libraries = Libraries(self.engine, cache_dir)
        _prune(self._cache_dir)
        self._timeout_s = compile_timeout_s
        self._compiling = threading.Lock()
        self._loading = threading.Lock()
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()

    def compile(self, wasm: Path, digest: str) -> None:
        """Makes sure that the component can be run: valid, compiled, every import offered.

        Raises:
            PieError: invalid-argument with the reason; timeout when compiling took too long.
        """
        target = self._cached(digest)
        with self._compiling:
            if target.exists() and self._loads(digest):
                return
            compile_in_child(wasm, target, self._timeout_s)
        self.load(digest)

    def _loads(self, digest: str) -> bool:
        """False for what an interrupted or foreign writer left in the cache."""
        try:
            self.load(digest)
        except PieError as error:
            if error.code != "internal":
                raise
            return False
        return True

    def check_imports(self, names: Iterable[str]) -> None:
        """PieError with the names of what no interface offers, before anything is compiled."""
        if unknown := unknown_imports(names, _INTERFACES):
            raise PieError(
                "invalid-argument",
                "the component imports what this host does not offer: " + ", ".join(unknown),
            )

    def load(self, digest: str) -> Loaded:
        """The compiled component with its linker; quick once it was loaded before."""
        with self._loading:
            loaded = self._loaded.get(digest)
            if loaded is None:
                path = self._cached(digest)
                component = host_engine.load_component(self.engine, path)
                path.touch()
                linker = build_linker(self.engine, _INTERFACES, component, self._libraries)
                loaded = self._loaded[digest] = Loaded(component, linker)
                if len(self._loaded) > _MAX_LOADED:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(digest)
            return loaded

    def run(self, loaded: Loaded, guest: HostContext, program_input: str) -> Outcome:
        """Runs to the end on this thread."""
        return run_component(self.engine, loaded.linker, loaded.component, guest, program_input)

    def _cached(self, digest: str) -> Path:
        return self._cache_dir / f"{host_engine.cache_key(digest)}.cwasm"


def _prune(cache_dir: Path, now_s: float | None = None) -> None:
    """Removes what was not loaded for longest until the cache is within its size.

    Other processes may share the folder: what they have just made or used is left to them.
    """
    now_s = time.time() if now_s is None else now_s
    total_bytes = 0
    for used_s, size_bytes, path in sorted(_files(cache_dir), reverse=True):
        total_bytes += size_bytes
        if total_bytes > _MAX_CACHE_BYTES and now_s - used_s > _KEEP_S:
            path.unlink(missing_ok=True)


def _files(cache_dir: Path) -> Iterator[tuple[float, int, Path]]:
    """When each was last used, its size, and the file; without those that vanish meanwhile."""
    for path in cache_dir.glob("*.cwasm"):
        with suppress(FileNotFoundError):
            found = path.stat()
            yield found.st_mtime, found.st_size, path
