"""A small reader of component binaries: enough to say what a file is without running it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MANIFEST = "pie:manifest"
"""The custom section that carries the manifest's text."""

_MAGIC = b"\0asm"
_COMPONENT = b"\x0d\x00\x01\x00"
_CORE_MODULE = b"\x01\x00\x00\x00"
HEADER_SIZE = len(_MAGIC) + len(_COMPONENT)
_CUSTOM, _IMPORT, _EXPORT = 0, 10, 11
_CORE_SORT = 0
_INDEX_ONLY_SORTS = frozenset((1, 4, 5))  # func, component, instance: one index follows


class ComponentError(Exception):
    """The bytes are no component that Pie can run; the message says what they are instead."""


@dataclass(frozen=True, slots=True)
class Section:
    """One top-level section; its content lies at [start, end)."""

    id: int
    header: int
    """Where the section's own header begins."""
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Component:
    size_bytes: int
    imports: tuple[str, ...]
    """Full names such as `pie:inferlet/models@0.1.0`."""
    exports: tuple[str, ...]
    custom: dict[str, bytes]

    @property
    def manifest(self) -> bytes:
        """The text of its `pie.toml`; empty when it carries none."""
        return self.custom.get(MANIFEST, b"")


def read_component(path: Path) -> Component:
    """Reads the outline of the component in a file; OSError when the file cannot be read."""
    return parse(path.read_bytes())


def parse(data: bytes) -> Component:
    """Reads the outline of a component; `ComponentError` for anything else, cut files included."""
    imports: list[str] = []
    exports: list[str] = []
    custom: dict[str, bytes] = {}
    for section in sections(data):
        reader = Reader(data, section.start, section.end)
        if section.id == _IMPORT:
            imports += [reader.imported() for _ in range(reader.number())]
        elif section.id == _EXPORT:
            exports += [reader.exported() for _ in range(reader.number())]
        elif section.id == _CUSTOM:
            name = reader.text()
            if name in custom and name.startswith("pie:"):
                raise ComponentError(f"the custom section {name} occurs twice")
            custom[name] = reader.rest()
    return Component(len(data), tuple(imports), tuple(exports), custom)


def sections(data: bytes) -> Iterator[Section]:
    """Walks the top-level sections, checking that they fill the file exactly."""
    _check_header(data)
    return sections_within(data)


def sections_within(data: bytes) -> Iterator[Section]:
    """As `sections`, of a component or a core module."""
    position = HEADER_SIZE
    while position < len(data):
        reader = Reader(data, position, len(data))
        id = reader.byte()
        size_bytes = reader.number()
        end = reader.position + size_bytes
        if end > len(data):
            raise ComponentError(
                f"the file is cut short: a section at byte {position} ends at byte {end}, "
                f"the file at {len(data)}"
            )
        yield Section(id, position, reader.position, end)
        position = end


def with_custom_section(data: bytes, name: str, payload: bytes) -> bytes:
    """The same component carrying `payload` under `name`, in place of one it had."""
    parts = [data[:HEADER_SIZE]]
    for section in sections(data):
        is_old = section.id == _CUSTOM and Reader(data, section.start, section.end).text() == name
        if not is_old:
            parts.append(data[section.header : section.end])
    parts.append(encoded_section(_CUSTOM, encoded_text(name) + payload))
    return b"".join(parts)


def encoded_section(id: int, content: bytes) -> bytes:
    return bytes([id]) + leb128(len(content)) + content


def encoded_text(text: str) -> bytes:
    encoded = text.encode()
    return leb128(len(encoded)) + encoded


def kind(data: bytes) -> Literal["component", "core module", "unknown"]:
    if data[:4] != _MAGIC:
        return "unknown"
    layer = data[4:8]
    if layer == _COMPONENT:
        return "component"
    return "core module" if layer == _CORE_MODULE else "unknown"


def _check_header(data: bytes) -> None:
    if not data:
        raise ComponentError("the file is empty")
    found = kind(data)
    if found == "core module":
        raise ComponentError(
            "this is a core WebAssembly module, not a component; build it with `bakery build`"
        )
    if found == "unknown":
        raise ComponentError("this is not a WebAssembly component")


class Reader:
    """Reads the values of one section; running past its end is a `ComponentError`."""

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self._data = data
        self._end = end
        self.position = position

    def byte(self) -> int:
        if self.position >= self._end:
            raise ComponentError(f"the file is cut short or damaged at byte {self.position}")
        self.position += 1
        return self._data[self.position - 1]

    def number(self) -> int:
        """An unsigned LEB128 of at most 32 bits."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ComponentError(f"a number at byte {self.position} is longer than 32 bits")

    def text(self) -> str:
        length = self.number()
        start, self.position = self.position, self.position + length
        if self.position > self._end:
            raise ComponentError(f"a name at byte {start} runs past its section")
        try:
            return self._data[start : self.position].decode()
        except UnicodeDecodeError:
            raise ComponentError(f"a name at byte {start} is not UTF-8") from None

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > self._end:
            raise ComponentError(f"the file is cut short or damaged at byte {self._end}")

    def since(self, start: int) -> bytes:
        return self._data[start : self.position]

    def rest(self) -> bytes:
        return self._data[self.position : self._end]

    def imported(self) -> str:
        name = self._extern_name()
        self._skip_extern_type()
        return name

    def exported(self) -> str:
        name = self._extern_name()
        if self.byte() == _CORE_SORT:
            self.byte()
        self.number()
        if self.byte():
            self._skip_extern_type()
        return name

    def _extern_name(self) -> str:
        if self.byte() > 1:  # 0 plain name, 1 interface name; both are followed by the text
            raise ComponentError(f"a name of unknown kind at byte {self.position - 1}")
        return self.text()

    def _skip_extern_type(self) -> None:
        sort = self.byte()
        if sort == _CORE_SORT:
            self.byte()
            self.number()
        elif sort in _INDEX_ONLY_SORTS:
            self.number()
        else:
            self._skip_bound(sort)

    def _skip_bound(self, sort: int) -> None:
        """A value (2) is bound by equality or type, a type (3) by equality or as a resource."""
        if sort not in (2, 3):
            raise ComponentError(f"an import or export of unknown kind at byte {self.position}")
        is_equality = self.byte() == 0
        if is_equality or sort == 2:
            self.number()


def leb128(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
