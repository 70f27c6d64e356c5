"""Converters of lists and tuples; lists of numbers cross in bulk.

A list arrives as an array of 32-byte values. For numbers the kind bytes and the payloads are
columns of that array, and one slice with a step moves a whole column in C. For bytes the slice is
one of bytes or of a bytearray, which is several times as fast as one of a memoryview.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import Any

from pie_daemon.host import ffi
from pie_daemon.host.abi_base import NUMBERS, AbiError, Converter, Template, TextValue, kind_of

_LIST = kind_of("LIST")
_TUPLE = kind_of("TUPLE")
_VAL, _PAYLOAD = ffi.VAL_SIZE, ffi.PAYLOAD
_kind_at = ctypes.c_uint64.from_address
_slot_at = TextValue.from_address
_PART = 4096
"""Bytes that cross at a time: their values still fit the processor's cache."""


def _new_list(address: int, length: int) -> int:
    """A list at `address`; the address of its uninitialised elements."""
    ffi.list_new(address + _PAYLOAD, length)
    return _slot_at(address).data or 0


def bytes_converter() -> Converter:
    kind = bytes([kind_of("U8")])
    bytes_at = ffi.bytes_at

    def lift(address: int, _context: int) -> bytes:
        slot = _slot_at(address)
        size, data = slot.size, slot.data
        if size <= _PART:
            return bytes_at(data, size * _VAL)[_PAYLOAD::_VAL] if size else b""
        parts = [(start, min(_PART, size - start)) for start in range(0, size, _PART)]
        return b"".join(
            [bytes_at(data + start * _VAL, num * _VAL)[_PAYLOAD::_VAL] for start, num in parts]
        )

    def lower(value: Any, address: int, _context: int) -> None:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise AbiError(f"{type(value).__name__} where bytes are expected")
        size = len(value)
        data = _new_list(address, size)
        for start in range(0, size, _PART):
            part = value[start : start + _PART]
            values = bytearray(len(part) * _VAL)
            values[0::_VAL] = kind * len(part)
            values[_PAYLOAD::_VAL] = part
            ffi.view(data + start * _VAL, len(values))[:] = values
        _kind_at(address).value = _LIST

    return Converter(lift, lower)


def number_list_converter(element: type) -> Converter:
    name, field, code = NUMBERS[element]
    width = ctypes.sizeof(field)
    first, stride = _PAYLOAD // width, _VAL // width
    kind = bytes([kind_of(name)])

    def lift(address: int, _context: int) -> list[Any]:
        slot = _slot_at(address)
        size = slot.size
        if not size:
            return []
        column: Any = ffi.view(slot.data, size * _VAL)
        numbers: list[Any] = column.cast(code)[first::stride].tolist()
        return numbers

    def lower(value: Any, address: int, _context: int) -> None:
        try:
            numbers = (
                value if type(value) is array and value.typecode == code else array(code, value)
            )
        except (TypeError, OverflowError) as error:
            raise AbiError(f"a list of {name.lower()} is expected: {error}") from None
        size = len(numbers)
        data = _new_list(address, size)
        if size:
            column: Any = ffi.view(data, size * _VAL)
            column[0::_VAL] = kind * size
            column.cast(code)[first::stride] = memoryview(numbers)
        _kind_at(address).value = _LIST

    return Converter(lift, lower)


def list_converter(element: Converter) -> Converter:
    lift_one, lower_one = element

    def lift(address: int, context: int) -> list[Any]:
        slot = _slot_at(address)
        size = slot.size
        if not size:
            return []
        data = slot.data
        return [lift_one(at, context) for at in range(data, data + size * _VAL, _VAL)]

    def lower(value: Any, address: int, context: int) -> None:
        size = len(value)
        at = _new_list(address, size)
        if size:
            ffi.zero(at, size * _VAL)
        _kind_at(address).value = _LIST
        for item in value:
            lower_one(item, at, context)
            at += _VAL

    return Converter(lift, lower)


def _tuple_template(length: int) -> Template:
    template = Template()
    ffi.tuple_new(template.address + _PAYLOAD, length)
    ffi.zero(_slot_at(template.address).data or 0, length * _VAL)
    _kind_at(template.address).value = _TUPLE
    return template


def tuple_converter(elements: list[Converter]) -> Converter:
    lifts = [element.lift for element in elements]
    lowers = [element.lower for element in elements]
    length = len(elements)
    template = _tuple_template(length)

    def lift(address: int, context: int) -> tuple[Any, ...]:
        data = _slot_at(address).data
        return tuple([one(data + index * _VAL, context) for index, one in enumerate(lifts)])

    def lower(value: Any, address: int, context: int) -> None:
        if len(value) != length:
            raise AbiError(f"{len(value)} values where a tuple of {length} is expected")
        ffi.val_clone(template.address, address)
        at = _slot_at(address).data
        for one, item in zip(lowers, value, strict=True):
            one(item, at, context)
            at += _VAL

    return Converter(lift, lower)
