"""The wasm engine: one configuration, a ticker while programs compute, compiling and loading."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from functools import partial
from pathlib import Path

import wasmtime
from wasmtime import component as c

from pie_daemon.errors import PieError
from pie_daemon.host import ffi
from pie_daemon.host.ticker import Ticker

MAX_WASM_STACK_BYTES = 1 << 20

# Part of the cache key: raise it when `_config` changes in a way that compiled code depends on.
_CONFIG_REVISION = 1


def _config(parallel: bool) -> wasmtime.Config:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.parallel_compilation = parallel
    config.max_wasm_stack = MAX_WASM_STACK_BYTES
    config.wasm_threads = False
    return config


class Engine:
    """What compiles, loads and interrupts components. One per process; safe from any thread."""

    def __init__(self, parallel_compilation: bool = True) -> None:
        self.stock = wasmtime.Engine(_config(parallel_compilation))
        self.pointer = ffi.address_of(self.stock.ptr())
        self.ticker = Ticker(partial(ffi.increment_epoch, self.pointer))
        """Looks at programs that compute, to stop them and to charge their CPU time."""


def load_component(engine: Engine, path: Path) -> c.Component:
    """Maps compiled code. The file must come from `pie_daemon.host.compile`: it is trusted."""
    try:
        return c.Component.deserialize_file(engine.stock, str(path))
    except wasmtime.WasmtimeError as error:
        raise PieError("internal", f"cannot load {path.name}: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    return str(error).strip().replace("\n", " ")


def cache_key(content_sha256: str) -> str:
    """Names compiled code by content, wasmtime version and engine configuration."""
    parts = (content_sha256, importlib.metadata.version("wasmtime"), str(_CONFIG_REVISION))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def write_code(path: Path, code: bytes) -> None:
    """Under another name first: other processes may make or load the same file."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(code)
    partial.replace(path)
