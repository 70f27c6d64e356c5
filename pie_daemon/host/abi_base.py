"""What a converter is, and the converters of scalars and strings.

A converter is a pair of plain functions over addresses of the C API's values, made once per type
when a component is linked. It keeps no state, so that any number of threads may share it.
`lower` writes over a value without heap memory (the C API hands results out as `false`), and
writes a parent before its children: when a child is refused, dropping the parent frees everything.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

from wasmtime import _ffi as stock
from wasmtime import component as c

from pie_daemon.host import ffi

Lift = Callable[[int, int], Any]
"""(address of the value, store context) -> Python value. Arguments stay owned by wasmtime."""
Lower = Callable[[Any, int, int], None]
"""(Python value, address of the value, store context)."""


class Converter(NamedTuple):
    lift: Lift
    lower: Lower


class ResultError(Exception):
    """The error side of a `result` whose error type is not Pie's `error` record."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)
        self.payload = payload


class AbiError(Exception):
    """A Python value that does not fit the WIT type: a defect of the host function."""


class Template:
    """A value that lives as long as this object and is only ever cloned from."""

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(ffi.VAL_SIZE)
        self.address = ctypes.addressof(self._memory)

    def __del__(self) -> None:
        ffi.val_delete(self.address)


def kind_of(name: str) -> int:
    return int(getattr(stock, f"WASMTIME_COMPONENT_{name}").value)


def _struct_of(field: Any) -> Any:
    class Value(ctypes.Structure):
        _fields_ = (("kind", ctypes.c_uint64), ("value", field))

    return Value


def _integer(kind: int, field: Any, low: int, high: int) -> Converter:
    at = _struct_of(field).from_address

    def lift(address: int, _context: int) -> int:
        return at(address).value  # type: ignore[no-any-return]

    def lower(value: Any, address: int, _context: int) -> None:
        if not isinstance(value, int) or not low <= value <= high:
            raise AbiError(f"{value!r} is not an integer in [{low}, {high}]")
        slot = at(address)
        slot.kind = kind
        slot.value = value

    return Converter(lift, lower)


def _float(kind: int, field: Any) -> Converter:
    at = _struct_of(field).from_address

    def lift(address: int, _context: int) -> float:
        return at(address).value  # type: ignore[no-any-return]

    def lower(value: Any, address: int, _context: int) -> None:
        slot = at(address)
        slot.kind = kind
        slot.value = value

    return Converter(lift, lower)


def _bool() -> Converter:
    at = _struct_of(ctypes.c_bool).from_address
    kind = kind_of("BOOL")

    def lift(address: int, _context: int) -> bool:
        return at(address).value  # type: ignore[no-any-return]

    def lower(value: Any, address: int, _context: int) -> None:
        slot = at(address)
        slot.kind = kind
        slot.value = bool(value)

    return Converter(lift, lower)


def _char() -> Converter:
    number = _integer(kind_of("CHAR"), ctypes.c_uint32, 0, 0x10FFFF)

    def lift(address: int, context: int) -> str:
        return chr(number.lift(address, context))

    def lower(value: Any, address: int, context: int) -> None:
        number.lower(ord(value), address, context)

    return Converter(lift, lower)


class TextValue(ctypes.Structure):
    """A value whose payload is (size, data): strings, enum names, lists, tuples, records."""

    _fields_ = (
        ("kind", ctypes.c_uint64),
        ("size", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
    )


def lift_text(address: int, _context: int) -> str:
    slot = TextValue.from_address(address)
    size = slot.size
    return str(ffi.bytes_at(slot.data, size), "utf-8") if size else ""


def text_lower(kind: int) -> Lower:
    at = ctypes.c_uint64.from_address
    new, payload = ffi.byte_vec_new, ffi.PAYLOAD

    def lower(value: Any, address: int, _context: int) -> None:
        if not isinstance(value, str):
            raise AbiError(f"{type(value).__name__} where a string is expected")
        # Lone surrogates cannot cross; a replacement is better than losing the whole text.
        data = value.encode("utf-8", "replace")
        new(address + payload, len(data), data)
        at(address).value = kind

    return lower


def _limits(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


# type -> (name of its kind, ctypes field, array typecode)
NUMBERS: dict[type, tuple[str, Any, str]] = {
    c.U8: ("U8", ctypes.c_uint8, "B"),
    c.U16: ("U16", ctypes.c_uint16, "H"),
    c.U32: ("U32", ctypes.c_uint32, "I"),
    c.U64: ("U64", ctypes.c_uint64, "Q"),
    c.S8: ("S8", ctypes.c_int8, "b"),
    c.S16: ("S16", ctypes.c_int16, "h"),
    c.S32: ("S32", ctypes.c_int32, "i"),
    c.S64: ("S64", ctypes.c_int64, "q"),
    c.F32: ("F32", ctypes.c_float, "f"),
    c.F64: ("F64", ctypes.c_double, "d"),
}


def _number(name: str, field: Any) -> Converter:
    if name[0] == "F":
        return _float(kind_of(name), field)
    return _integer(kind_of(name), field, *_limits(int(name[1:]), name[0] == "S"))


SCALARS: dict[type, Converter] = {
    **{ty: _number(name, field) for ty, (name, field, _) in NUMBERS.items()},
    c.Bool: _bool(),
    c.Char: _char(),
    c.String: Converter(lift_text, text_lower(kind_of("STRING"))),
}
