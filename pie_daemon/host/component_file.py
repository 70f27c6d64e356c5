"""Reads the names that a component imports and exports, without compiling it.

Only the outermost level matters: everything nested is skipped by its size.
"""

from __future__ import annotations

from typing import NamedTuple

from pie_daemon.errors import PieError

_MAGIC = b"\0asm"
_COMPONENT = b"\x0d\x00\x01\x00"
_MODULE = b"\x01\x00\x00\x00"
_IMPORTS, _EXPORTS = 10, 11


class Names(NamedTuple):
    imports: list[str]
    exports: list[str]


class _Reader:
    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.data, self.at, self.end = data, start, end

    def take(self, length: int) -> bytes:
        start, self.at = self.at, self.at + length
        if self.at > self.end:
            raise PieError("invalid-argument", "the file is truncated")
        return self.data[start : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """Unsigned LEB128."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def name(self) -> str:
        form = self.byte()
        name = self.take(self.number()).decode("utf-8", "replace")
        if form == 0x02:  # a name with attributes, which say nothing that is needed here
            for _ in range(self.number()):
                self.byte()
                self.take(self.number())
        return name


def _skip_description(reader: _Reader) -> None:
    """The type of an import or export."""
    form = reader.byte()
    if form == 0x00:  # core module
        reader.byte()
    if form == 0x03 and reader.byte() == 0x01:  # a fresh resource has no index
        return
    if form == 0x02 and reader.byte() == 0x01:  # a value by its type
        raise PieError("unsupported", "the component imports or exports a value")
    reader.number()


def _imports(reader: _Reader) -> list[str]:
    names = []
    for _ in range(reader.number()):
        names.append(reader.name())
        _skip_description(reader)
    return names


def _exports(reader: _Reader) -> list[str]:
    names = []
    for _ in range(reader.number()):
        names.append(reader.name())
        if reader.byte() == 0x00:  # sort: a core item has a second byte
            reader.byte()
        reader.number()
        if reader.byte() == 0x01:
            _skip_description(reader)
    return names


def read_names(data: bytes) -> Names:
    """Raises `invalid-argument` unless the bytes are a whole component."""
    _check_preamble(data)
    names = Names([], [])
    reader = _Reader(data, 8, len(data))
    while reader.at < reader.end:
        section, size = reader.byte(), reader.number()
        start = reader.at
        reader.at += size
        if reader.at > reader.end:
            raise PieError("invalid-argument", "the file is truncated")
        if section == _IMPORTS:
            names.imports.extend(_imports(_Reader(data, start, reader.at)))
        elif section == _EXPORTS:
            names.exports.extend(_exports(_Reader(data, start, reader.at)))
    return names


def _check_preamble(data: bytes) -> None:
    if data[:4] != _MAGIC:
        raise PieError("invalid-argument", "not a WebAssembly file")
    if data[4:8] == _MODULE:
        raise PieError(
            "invalid-argument",
            "a core module, not a component: build it with `bakery build`, or for another "
            "toolchain with `wasm-tools component new`",
        )
    if data[4:8] != _COMPONENT:
        raise PieError("invalid-argument", "a WebAssembly file of an unknown version")
