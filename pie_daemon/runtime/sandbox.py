"""Compiled components: compiled once in a child process, cached on disk, loaded once a process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pie_daemon.host import engine as host_engine
from pie_daemon.host.abi import Linker, build_linker
from pie_daemon.host.compile import compile_in_child
from pie_daemon.host.context import HostContext
from pie_daemon.host.interfaces import INTERFACES
from pie_daemon.host.run import Outcome, run_component
from pie_daemon.host.wasi import INTERFACES as WASI_INTERFACES

_MAX_LOADED = 64


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
            if not target.exists():
                compile_in_child(wasm, target, self._timeout_s)
        self.load(digest)

    def load(self, digest: str) -> Loaded:
        """The compiled component with its linker; quick once it was loaded before."""
        with self._loading:
            loaded = self._loaded.get(digest)
            if loaded is None:
                component = host_engine.load_component(self.engine, self._cached(digest))
                linker = build_linker(self.engine, [*INTERFACES, *WASI_INTERFACES], component)
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
