"""The functions that wasmtime calls: convert, call, convert back, and never raise into C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from wasmtime import component as c

from pie_daemon.errors import PieError
from pie_daemon.host import ffi
from pie_daemon.host.abi_base import Lower, ResultError
from pie_daemon.host.abi_types import TypeCompiler
from pie_daemon.host.abi_variants import result_side
from pie_daemon.host.guest import Exit, Guest, current
from pie_daemon.host.stop import Stopped


def callback(
    where: str, function: Callable[..., Any], ty: c.FuncType, compiler: TypeCompiler
) -> Any:
    lifts = [compiler.compile(param).lift for _, param in ty.params]
    offsets = range(0, ffi.VAL_SIZE * len(lifts), ffi.VAL_SIZE)
    arguments = list(zip(offsets, lifts, strict=True))
    lower, refuse = _result_lowering(ty.result, compiler)
    if any(isinstance(param, c.OwnType) for _, param in ty.params):
        function = _settling(function)

    def call(
        _data: int, context: int, _type: int, args: int, _nargs: int, results: int, _nresults: int
    ) -> int:
        try:
            try:
                value = function(*[lift(args + offset, context) for offset, lift in arguments])
            except (PieError, ResultError) as error:
                if refuse is None:
                    raise
                refuse(error, results, context)
                return 0
            if lower is not None:
                lower(value, results, context)
            return 0
        except BaseException as error:  # noqa: BLE001  # nothing may unwind into C
            return _trap(where, error)

    return ffi.FUNC_CALLBACK(call)


def _settling(function: Callable[..., Any]) -> Callable[..., Any]:
    def settled(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        finally:
            current().table.settle()

    return settled


def _result_lowering(
    ty: Any, compiler: TypeCompiler
) -> tuple[Lower | None, Callable[[Any, int, int], None] | None]:
    """How to write what a function returned, and how to write what it refused with."""
    if ty is None:
        return None, None
    if not isinstance(ty, c.ResultType):
        return compiler.compile(ty).lower, None
    err = ty.err
    lower_error = result_side(False, compiler.optional(err))
    takes_pie_errors = isinstance(err, c.RecordType) and [n for n, _ in err.fields] == [
        "code",
        "message",
    ]

    def refuse(error: PieError | ResultError, address: int, context: int) -> None:
        if isinstance(error, ResultError):
            lower_error(error.payload, address, context)
        elif takes_pie_errors:
            lower_error(error, address, context)
        else:
            raise error

    return result_side(True, compiler.optional(ty.ok)), refuse


def _trap(where: str, error: BaseException) -> int:
    """An error of the C API that ends the program; the exception itself is kept for the report."""
    guest = current()
    if guest.cause is None:
        guest.cause = error
    if not isinstance(error, Stopped | PieError | Exit):
        _report(guest, where, error)
    text = f"{where}: {type(error).__name__}: {error}".replace("\0", "")
    return int(ffi.error_new(text.encode("utf-8", "replace")))


def _report(guest: Guest, where: str, error: BaseException) -> None:
    try:
        guest.on_failure(where, error)
    except Exception:  # noqa: BLE001  # the trap matters more than its report
        sys.excepthook(type(error), error, error.__traceback__)


def _destroy(_data: int, _context: int, rep: int) -> int:
    try:
        current().table.drop(rep)
        return 0
    except BaseException as error:  # noqa: BLE001  # nothing may unwind into C
        return _trap("destructor", error)


destructor = ffi.DESTRUCTOR(_destroy)
