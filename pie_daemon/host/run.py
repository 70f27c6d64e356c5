"""One run of one component: a store, an instance, the call of `run`, and how it ended."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wasmtime import _ffi as stock
from wasmtime import component as c

from pie_daemon.host import ffi
from pie_daemon.host.abi import Linker
from pie_daemon.host.abi_base import SCALARS, kind_of
from pie_daemon.host.engine import Engine
from pie_daemon.host.guest import Exit, Guest, entered
from pie_daemon.host.stop import Reason, Stopped

_CONTINUE = 0
_MAX_TABLE_ELEMENTS = 1_000_000
_MAX_CORE_INSTANCES = 1_000
_UNLIMITED = -1
# Python, Rust, JavaScript and C++, and wasmtime when not even the initial memory fits.
_OUT_OF_MEMORY = re.compile(
    r"MemoryError|memory allocation of \d+ bytes failed|out of memory|bad_alloc"
    r"|exceeds memory limits"
)
# What componentize-py's runtime adds below the author's own traceback.
_NOISE = re.compile(
    r"thread '<unnamed>'|Python function threw an unexpected exception|note: run with `RUST_"
)
_string = SCALARS[c.String]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `ok` and `err` carry the program's own result. `stopped` was ended from outside or by a grant,
    `reason` says which; `trap` is everything else, and `text` then is for people.
    """

    kind: Literal["ok", "err", "trap", "stopped"]
    text: str
    reason: Reason | None = None


class _Failed(Exception):
    """wasmtime's own words for the end of a call."""


def run_component(
    engine: Engine, linker: Linker, component: c.Component, guest: Guest, program_input: str
) -> Outcome:
    """Runs `run(input)` on this thread until it ends; the guest's table is closed by then."""
    with entered(guest):
        guest.cpu.start()
        engine.ticker.enter()
        guest.mailbox.ticker = engine.ticker
        try:
            outcome = _run(engine, linker, component, guest, program_input)
            _finish_output(guest)
            return _name_memory_grant(guest, outcome)
        finally:
            guest.mailbox.ticker = None
            engine.ticker.leave()
            guest.cpu.charge()
            guest.table.close()


def _finish_output(guest: Guest) -> None:
    try:
        guest.finish_output()
    except Stopped:
        # Nobody takes the last line any more; the outcome is known already.
        return


def _name_memory_grant(guest: Guest, outcome: Outcome) -> Outcome:
    """Says so when a program failed because its memory could not grow.

    wasmtime only refuses to grow; what a program makes of it is the language's affair, so the
    words in which the common ones say it are looked for.
    """
    if guest.memory_bytes is None or outcome.kind not in ("err", "trap"):
        return outcome
    if not _OUT_OF_MEMORY.search(outcome.text):
        return outcome
    grant = f"out of memory: the memory grant is {guest.memory_bytes / (1 << 20):g} MiB"
    return Outcome("stopped", f"{grant}\n{outcome.text}", "memory")


def _run(
    engine: Engine, linker: Linker, component: c.Component, guest: Guest, program_input: str
) -> Outcome:
    store = ffi.store_new(engine.pointer, None, None)
    on_epoch = ffi.EPOCH_CALLBACK(_epoch_check(guest))
    try:
        _prepare(store, guest, on_epoch)
        guest.mailbox.check()
        is_ok, text = _call_run(store, linker, component, program_input)
        return Outcome("ok" if is_ok else "err", text)
    except Stopped as stop:
        return _stopped(stop)
    except _Failed as failure:
        return _explain(guest, str(failure))
    finally:
        ffi.store_delete(store)


def _prepare(store: int, guest: Guest, on_epoch: object) -> None:
    memory_bytes = _UNLIMITED if guest.memory_bytes is None else guest.memory_bytes
    ffi.store_limiter(
        store, memory_bytes, _MAX_TABLE_ELEMENTS, _MAX_CORE_INSTANCES, _UNLIMITED, _UNLIMITED
    )
    ffi.set_epoch_deadline(ffi.store_context(store), 1)
    ffi.epoch_callback(store, on_epoch, None, ffi.NO_FINALIZER)


def _epoch_check(guest: Guest) -> Callable[[int, int, int, int], int]:
    """Called on the guest's thread whenever a tick passed while wasm was running."""

    def on_epoch(_context: int, _data: int, delta: int, update: int) -> int:
        ctypes.c_uint64.from_address(delta).value = 1
        ctypes.c_uint8.from_address(update).value = _CONTINUE
        guest.cpu.charge()
        stop = guest.mailbox.stopped or guest.cpu.exceeded()
        if stop is None:
            return 0
        guest.cause = guest.cause or stop
        return int(ffi.error_new(stop.message.encode()))

    return on_epoch


def _call_run(
    store: int, linker: Linker, component: c.Component, program_input: str
) -> tuple[bool, str]:
    context = ffi.store_context(store)
    instance = stock.wasmtime_component_instance_t()
    pointer = ffi.address_of(component.ptr())
    _check(ffi.instantiate(linker.pointer, context, pointer, ctypes.addressof(instance)))
    function = _find_run(instance, context)
    values = ctypes.create_string_buffer(2 * ffi.VAL_SIZE)
    argument = ctypes.addressof(values)
    result = argument + ffi.VAL_SIZE
    _string.lower(program_input, argument, context)
    try:
        _check(ffi.func_call(ctypes.addressof(function), context, argument, 1, result, 1))
        return _read_result(result, context)
    finally:
        ffi.val_delete(argument)
        ffi.val_delete(result)


def _find_run(
    instance: stock.wasmtime_component_instance_t, context: int
) -> stock.wasmtime_component_func_t:
    name = b"run"
    at = ctypes.addressof(instance)
    index = ffi.instance_get_export_index(at, context, None, name, len(name))
    if not index:
        raise _Failed("the component does not export `run`")
    function = stock.wasmtime_component_func_t()
    found = ffi.instance_get_func(at, context, index, ctypes.addressof(function))
    ffi.export_index_delete(index)
    if not found:
        raise _Failed("the component's export `run` is not a function")
    return function


def _read_result(address: int, context: int) -> tuple[bool, str]:
    kind = ctypes.c_uint8.from_address(address).value
    if kind != kind_of("RESULT"):
        raise _Failed("`run` does not return result<string, string>")
    is_ok = ctypes.c_bool.from_address(address + ffi.PAYLOAD).value
    box = ctypes.c_uint64.from_address(address + ffi.PAYLOAD + 8).value
    return is_ok, _string.lift(box, context) if box else ""


def _check(error: int | None) -> None:
    if error:
        raise _Failed(ffi.take_error(error))


def _stopped(stop: Stopped) -> Outcome:
    return Outcome("stopped", stop.message, stop.reason)


def _explain(guest: Guest, wasmtime_text: str) -> Outcome:
    _finish_output(guest)
    cause = guest.cause
    if isinstance(cause, Stopped):
        return _stopped(cause)
    if isinstance(cause, Exit):
        return _exited(cause.status)
    return Outcome("trap", _with_stderr(guest, _reason(wasmtime_text)))


def _exited(status: int) -> Outcome:
    if status == 0:
        return Outcome("ok", "null")
    return Outcome("err", f"the program exited with status {status}")


def _reason(wasmtime_text: str) -> str:
    """wasmtime's innermost cause; the addresses above it mean nothing to a reader."""
    _, found, cause = wasmtime_text.rpartition("Caused by:")
    lines = (cause if found else wasmtime_text).strip().splitlines()
    return lines[-1].strip() if lines else "trapped"


def _with_stderr(guest: Guest, text: str) -> str:
    tail = [line for line in guest.stderr_tail if not _NOISE.match(line)]
    return "\n".join([text, *tail]).rstrip()
