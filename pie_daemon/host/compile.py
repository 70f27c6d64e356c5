"""Compiles a component in a child process of low priority: `python -m pie_daemon.host.compile`.

Compiling takes seconds of every core; in a process of its own it neither holds this one's
interpreter lock nor takes its share of the processor, and a defect of the compiler ends only it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import wasmtime
from wasmtime import component as c

from pie_bakery import component as outline
from pie_daemon.errors import PieError
from pie_daemon.host.apart import take_apart
from pie_daemon.host.engine import Engine, first_line, write_code
from pie_daemon.host.libraries import Libraries

_NICENESS = 10
_EX_DATAERR = 65
COMPILE_TIMEOUT_S = 300.0


def compile_in_child(source: Path, target: Path, timeout_s: float = COMPILE_TIMEOUT_S) -> None:
    """Blocks until `target` holds the machine code of the component in `source`, and its folder
    that of the component's libraries."""
    command = [sys.executable, "-m", "pie_daemon.host.compile", str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise PieError("timeout", f"compiling took longer than {timeout_s:g} s") from None
    if done.returncode == 0:
        return
    text = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == _EX_DATAERR:
        raise PieError("invalid-argument", text)
    raise PieError("internal", f"the compiler ended with {done.returncode}: {text[-2000:]}")


def compile_component(engine: Engine, libraries: Libraries, data: bytes) -> bytes:
    """Machine code for `load_component`; that of libraries is kept by itself. Takes seconds where
    these are new."""
    try:
        outline.parse(data)
        own, shared = take_apart(data)
    except outline.ComponentError as error:
        raise PieError("invalid-argument", str(error)) from None
    try:
        for name, code in shared.items():
            libraries.compile(name, code)
        return bytes(c.Component(engine.stock, own).serialize())
    except wasmtime.WasmtimeError as error:
        raise PieError("invalid-argument", f"not a valid component: {first_line(error)}") from None


def main(arguments: list[str]) -> int:
    source, target = (Path(argument) for argument in arguments)
    os.nice(_NICENESS)
    try:
        engine = Engine()
        code = compile_component(engine, Libraries(engine, target.parent), source.read_bytes())
    except PieError as error:
        sys.stderr.write(error.message + "\n")
        return _EX_DATAERR
    write_code(target, code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
