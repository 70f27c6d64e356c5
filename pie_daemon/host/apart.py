"""Takes a component apart: code that other components may have too, and what is its own.

A core module of code alone becomes an import of the component, under a name made of its content.
All else stays as it is, so whatever is not understood here is left to the compiler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pie_bakery.component import (
    HEADER_SIZE,
    ComponentError,
    Reader,
    encoded_section,
    encoded_text,
    leb128,
    sections,
    sections_within,
)

_PREFIX = "library-x"
_LEAST_BYTES = 1 << 15
"""What is smaller compiles in no time."""
_CORE_MODULE, _CORE_TYPE, _IMPORT = 1, 3, 10
"""Sections of a component."""
_TYPES, _IMPORTS, _FUNCS, _TABLES, _MEMORIES, _GLOBALS, _EXPORTS, _TAGS = 1, 2, 3, 4, 5, 6, 7, 13
_CODE, _DATA = 10, 11
"""Sections of a core module."""
_FUNC, _TABLE, _MEMORY, _GLOBAL, _TAG = range(5)
_FUNC_TYPE = 0x60
_PLAIN_VALUES = (0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70, 0x6F)
"""Others are references to types, at which wasmtime 49 panics in a declared module."""
_END, _F32, _F64 = 0x0B, 0x43, 0x44
_ONE_NUMBER = (0x41, 0x42, 0x23, 0xD0, 0xD2)
"""Of constant expressions: i32.const, i64.const, global.get, ref.null and ref.func."""
_ALONE = (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E)
"""Sums, differences and products."""


def is_library(name: str) -> bool:
    """Of an import."""
    return name.startswith(_PREFIX)


def take_apart(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The component that imports its libraries, and these by their names.

    Raises: ComponentError: the sections do not fill it."""
    found = list(sections(data))
    libraries: dict[str, bytes] = {}
    if any(section.id == _CORE_TYPE for section in found):
        return data, libraries  # types are numbered, and those of libraries would come between
    parts = [data[:HEADER_SIZE]]
    for section in found:
        part = data[section.header : section.end]
        if section.id == _CORE_MODULE:
            part = _imported(data[section.start : section.end], libraries) or part
        parts.append(part)
    return b"".join(parts), libraries


def _imported(code: bytes, libraries: dict[str, bytes]) -> bytes | None:
    """What stands in place of a module; None: it stays."""
    if len(code) < _LEAST_BYTES:
        return None
    try:
        described = _Module(code).described()
    except (ComponentError, _Unknown):
        return None
    name = _PREFIX + hashlib.sha256(code).hexdigest()
    if name in libraries:
        return None
    number = leb128(len(libraries))
    libraries[name] = code
    return encoded_section(_CORE_TYPE, b"\x01" + described) + encoded_section(
        _IMPORT, b"\x01\x00" + encoded_text(name) + b"\x00\x11" + number
    )


class _Unknown(Exception):
    """Not code alone, or something that is not understood here."""


class _Module:
    """What a core module wants and offers, with types as they are encoded in it."""

    def __init__(self, code: bytes) -> None:
        self._declared: list[bytes] = []
        self._items: dict[int, list[bytes]] = {kind: [] for kind in range(_TAG + 1)}
        read: dict[int, Callable[[Reader], None]] = {
            _TYPES: self._read_type,
            _IMPORTS: self._read_import,
            _FUNCS: lambda reader: self._read_item(reader, _FUNC),
            _TABLES: lambda reader: self._read_item(reader, _TABLE),
            _MEMORIES: lambda reader: self._read_item(reader, _MEMORY),
            _GLOBALS: self._read_global,
            _EXPORTS: self._read_export,
            _TAGS: lambda reader: self._read_item(reader, _TAG),
        }
        ids = set()
        for section in sections_within(code):
            ids.add(section.id)
            if section.id in read:
                reader = Reader(code, section.start, section.end)
                for _ in range(reader.number()):
                    read[section.id](reader)
        if _CODE not in ids or _DATA in ids:
            raise _Unknown

    def described(self) -> bytes:
        """As a component declares the type of a core module. Types come first, as in the module, so
        that their numbers stay."""
        return b"\x50" + leb128(len(self._declared)) + b"".join(self._declared)

    def _read_type(self, reader: Reader) -> None:
        start = reader.position
        if reader.byte() != _FUNC_TYPE:
            raise _Unknown
        for _ in ("parameters", "results"):
            for _ in range(reader.number()):
                _skip_value(reader)
        self._declared.append(b"\x01" + reader.since(start))

    def _read_import(self, reader: Reader) -> None:
        start = reader.position
        reader.text()
        reader.text()
        self._read_item(reader, reader.byte())
        self._declared.append(b"\x00" + reader.since(start))

    def _read_item(self, reader: Reader, kind: int) -> None:
        start = reader.position
        if kind not in self._items:
            raise _Unknown
        _SKIP[kind](reader)
        self._items[kind].append(bytes([kind]) + reader.since(start))

    def _read_global(self, reader: Reader) -> None:
        self._read_item(reader, _GLOBAL)
        _skip_constant(reader)

    def _read_export(self, reader: Reader) -> None:
        name, kind, number = reader.text(), reader.byte(), reader.number()
        items = self._items.get(kind, [])
        if number >= len(items):
            raise _Unknown
        self._declared.append(b"\x03" + encoded_text(name) + items[number])


def _skip_value(reader: Reader) -> None:
    if reader.byte() not in _PLAIN_VALUES:
        raise _Unknown


def _skip_limits(reader: Reader) -> None:
    flags = reader.byte()
    if flags > 7:
        raise _Unknown
    reader.number()
    if flags & 1:
        reader.number()


def _skip_table(reader: Reader) -> None:
    _skip_value(reader)
    _skip_limits(reader)


def _skip_global(reader: Reader) -> None:
    _skip_value(reader)
    reader.byte()


def _skip_tag(reader: Reader) -> None:
    reader.byte()
    reader.number()


_SKIP: dict[int, Callable[[Reader], object]] = {
    _FUNC: Reader.number,
    _TABLE: _skip_table,
    _MEMORY: _skip_limits,
    _GLOBAL: _skip_global,
    _TAG: _skip_tag,
}


def _skip_constant(reader: Reader) -> None:
    while (instruction := reader.byte()) != _END:
        if instruction in _ONE_NUMBER:
            while reader.byte() & 0x80:
                pass
        elif instruction in (_F32, _F64):
            reader.skip(4 if instruction == _F32 else 8)
        elif instruction not in _ALONE:
            raise _Unknown
