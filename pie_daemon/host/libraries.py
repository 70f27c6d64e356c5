"""Code that programs have in common: compiled once, loaded once, whatever else is in them.

A program in Python is 7 MB of CPython, the same in each, and 11 MB of memory as its imports left
it. Compiling the former takes 15 s of a processor, all else half a second.
"""

from __future__ import annotations

from pathlib import Path
from weakref import WeakValueDictionary

import wasmtime

from pie_daemon.errors import PieError
from pie_daemon.host.engine import Engine, cache_key, first_line, write_code


class Libraries:
    """Machine code in a folder that processes may share, by the names of `take_apart`."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._loaded: WeakValueDictionary[str, wasmtime.Module] = WeakValueDictionary()
        """One mapping for all that use it."""

    def load(self, name: str) -> wasmtime.Module:
        """Raises: PieError: internal: it is not there, or damaged."""
        module = self._loaded.get(name)
        if module is None:
            path = self._path(name)
            try:
                module = wasmtime.Module.deserialize_file(self._engine.stock, str(path))
                path.touch()
            except (wasmtime.WasmtimeError, OSError) as error:
                raise PieError(
                    "internal", f"cannot load {path.name}: {first_line(error)}"
                ) from None
            self._loaded[name] = module
        return module

    def compile(self, name: str, code: bytes) -> None:
        """Does nothing where it was compiled before. Raises: WasmtimeError: it is not valid."""
        try:
            self.load(name)
        except PieError:
            module = wasmtime.Module(self._engine.stock, code)
            write_code(self._path(name), bytes(module.serialize()))

    def _path(self, name: str) -> Path:
        return self._folder / f"{cache_key(name)}.cwasm"
