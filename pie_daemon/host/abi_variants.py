"""Converters of records, variants, enums, options, results and flags.

Names travel inside every value, so a record or a variant case is cloned from a template that
already carries them, and only its payloads are written.
"""

from __future__ import annotations

import ctypes
import keyword
from collections import namedtuple
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from pie_daemon.host import ffi
from pie_daemon.host.abi_base import (
    AbiError,
    Converter,
    Template,
    TextValue,
    kind_of,
    lift_text,
    text_lower,
)

_VAL, _ENTRY, _PAYLOAD, _ENTRY_VAL = ffi.VAL_SIZE, ffi.ENTRY_SIZE, ffi.PAYLOAD, ffi.ENTRY_VAL
_kind_at = ctypes.c_uint64.from_address
_pointer_at = ctypes.c_uint64.from_address
_slot_at = TextValue.from_address
_false = ctypes.create_string_buffer(_VAL)
_FALSE = ctypes.addressof(_false)


def python_name(name: str) -> str:
    """A WIT name as Python writes it."""
    plain = name.replace("-", "_")
    return plain + "_" if keyword.iskeyword(plain) else plain


def _record_template(names: Sequence[str]) -> Template:
    template = Template()
    ffi.record_new(template.address + _PAYLOAD, len(names))
    data = _slot_at(template.address).data
    if names:
        ffi.zero(data, _ENTRY * len(names))
    for index, name in enumerate(names):
        encoded = name.encode()
        ffi.byte_vec_new(data + index * _ENTRY, len(encoded), encoded)
    _kind_at(template.address).value = kind_of("RECORD")
    return template


def record_converter(fields: list[tuple[str, Converter]]) -> Converter:
    """Lifts into a named tuple; lowers from attributes or from a dict of Python names."""
    names = [python_name(name) for name, _ in fields]
    make = namedtuple("Record", names)  # type: ignore[misc]
    lifts = [converter.lift for _, converter in fields]
    lowers = [converter.lower for _, converter in fields]
    template = _record_template([name for name, _ in fields])
    read = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)

    def lift(address: int, context: int) -> Any:
        at = _slot_at(address).data + _ENTRY_VAL
        return make(*[one(at + index * _ENTRY, context) for index, one in enumerate(lifts)])

    def values_of(value: Any) -> Any:
        try:
            if isinstance(value, dict):
                return [value[name] for name in names]
            return read(value)
        except (AttributeError, KeyError) as error:
            raise AbiError(f"{type(value).__name__} lacks a field of the record: {error}") from None

    def lower(value: Any, address: int, context: int) -> None:
        values = values_of(value)
        ffi.val_clone(template.address, address)
        at = _slot_at(address).data + _ENTRY_VAL
        for one, item in zip(lowers, values, strict=True):
            one(item, at, context)
            at += _ENTRY

    return Converter(lift, lower)


class _VariantValue(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_uint64),
        ("size", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("box", ctypes.c_void_p),
    )


_variant_at = _VariantValue.from_address


def _case_template(name: str, has_payload: bool) -> Template:
    template = Template()
    encoded = name.encode()
    ffi.byte_vec_new(template.address + _PAYLOAD, len(encoded), encoded)
    slot = _variant_at(template.address)
    slot.box = ffi.val_new(_FALSE) if has_payload else None
    slot.kind = kind_of("VARIANT")
    return template


def variant_converter(cases: list[tuple[str, Converter | None]]) -> Converter:
    """A variant is a tuple `(case, payload)`; the payload of a case without one is None."""
    by_name = {
        name: (payload, _case_template(name, payload is not None)) for name, payload in cases
    }

    def lift(address: int, context: int) -> tuple[str, Any]:
        slot = _variant_at(address)
        name = str(ffi.bytes_at(slot.data, slot.size), "utf-8")
        payload = by_name[name][0]
        return name, None if payload is None else payload.lift(slot.box, context)

    def lower(value: Any, address: int, context: int) -> None:
        name, item = (value, None) if isinstance(value, str) else value
        if name not in by_name:
            raise AbiError(f"{name!r} is not a case of the variant {sorted(by_name)}")
        payload, template = by_name[name]
        ffi.val_clone(template.address, address)
        if payload is not None:
            payload.lower(item, _variant_at(address).box, context)

    return Converter(lift, lower)


def enum_converter(names: Sequence[str]) -> Converter:
    known = frozenset(names)
    write = text_lower(kind_of("ENUM"))

    def lower(value: Any, address: int, context: int) -> None:
        if value not in known:
            raise AbiError(f"{value!r} is not a case of the enum {sorted(known)}")
        write(value, address, context)

    return Converter(lift_text, lower)


def option_converter(payload: Converter) -> Converter:
    """None is `none`; everything else is the payload."""
    kind = kind_of("OPTION")
    lift_one, lower_one = payload

    def lift(address: int, context: int) -> Any:
        box = _pointer_at(address + _PAYLOAD).value
        return lift_one(box, context) if box else None

    def lower(value: Any, address: int, context: int) -> None:
        box = 0 if value is None else ffi.val_new(_FALSE)
        _pointer_at(address + _PAYLOAD).value = box
        _kind_at(address).value = kind
        if box:
            lower_one(value, box, context)

    return Converter(lift, lower)


class _ResultValue(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_uint64),
        ("is_ok", ctypes.c_uint64),
        ("box", ctypes.c_void_p),
    )


_result_at = _ResultValue.from_address


def result_side(is_ok: bool, payload: Converter | None) -> Any:
    """A function that writes a value as one side of a result."""
    kind = kind_of("RESULT")

    def lower(value: Any, address: int, context: int) -> None:
        slot = _result_at(address)
        slot.is_ok = is_ok
        box: int = 0 if payload is None else ffi.val_new(_FALSE)
        slot.box = box
        slot.kind = kind
        if payload is not None:
            payload.lower(value, box, context)
        elif value is not None:
            raise AbiError(f"{type(value).__name__} where a result without a value is expected")

    return lower


def result_converter(ok: Converter | None, err: Converter | None) -> Converter:
    """A result inside another value is a tuple `("ok", value)` or `("err", error)`."""
    sides = {"ok": result_side(True, ok), "err": result_side(False, err)}

    def lift(address: int, context: int) -> tuple[str, Any]:
        slot = _result_at(address)
        # Only the first byte of the field is the flag; the rest is padding.
        name, payload = ("ok", ok) if slot.is_ok & 0xFF else ("err", err)
        return name, None if payload is None else payload.lift(slot.box, context)

    def lower(value: Any, address: int, context: int) -> None:
        side, item = value
        sides[side](item, address, context)

    return Converter(lift, lower)


def flags_converter(names: Sequence[str]) -> Converter:
    known = frozenset(names)
    kind = kind_of("FLAGS")
    at = ffi.Bytes.from_address
    size_of_name = ctypes.sizeof(ffi.Bytes)

    def lift(address: int, _context: int) -> frozenset[str]:
        slot = _slot_at(address)
        slots = [at((slot.data or 0) + index * size_of_name) for index in range(slot.size)]
        return frozenset(str(ffi.bytes_at(name.data, name.size), "utf-8") for name in slots)

    def lower(value: Any, address: int, _context: int) -> None:
        if not known.issuperset(value):
            raise AbiError(f"{set(value) - known} are not flags of {sorted(known)}")
        ffi.flags_new(address + _PAYLOAD, len(value))
        _kind_at(address).value = kind
        data = _slot_at(address).data or 0
        for index, name in enumerate(value):
            encoded = name.encode()
            ffi.byte_vec_new(data + index * size_of_name, len(encoded), encoded)

    return Converter(lift, lower)
