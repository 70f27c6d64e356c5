"""Hand-made component binaries: only the outline that a reader looks at."""

from __future__ import annotations

HEADER = b"\0asm\x0d\x00\x01\x00"
RUN = ("run", b"\x01\x00")  # a function, index 0


def section(id: int, content: bytes) -> bytes:
    return bytes([id]) + leb(len(content)) + content


def custom(name: str, payload: bytes) -> bytes:
    return section(0, text(name) + payload)


def imports(*names: str) -> bytes:
    """Instances of type 0."""
    return section(10, leb(len(names)) + b"".join(b"\0" + text(n) + b"\x05\0" for n in names))


def exports(*items: tuple[str, bytes]) -> bytes:
    return section(
        11, leb(len(items)) + b"".join(b"\0" + text(name) + sort + b"\0" for name, sort in items)
    )


def text(value: str) -> bytes:
    return leb(len(value.encode())) + value.encode()


def leb(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
