"""Pages of KV in files: one record after the other, each with a checksum.

A file that was cut off, by a crash or a full disk, is still good for the pages before that place.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from pie_backend.batch import PageFile

CHECKSUM_BYTES = 8


class PageFileError(Exception):
    """The file could not be written, or does not hold what was asked for."""


def write_pages(file: PageFile, contents: Iterable[bytes]) -> None:
    """Raises: PageFileError."""
    try:
        with Path(file.path).open("r+b" if file.first else "wb") as out:
            for number, content in enumerate(contents, file.first):
                out.seek(number * (len(content) + CHECKSUM_BYTES))
                out.write(content + _checksum(content))
    except OSError as error:
        raise PageFileError(f"{file.path}: {error}") from None


def read_pages(file: PageFile, page_bytes: int) -> list[bytes]:
    """Raises: PageFileError."""
    record_bytes = page_bytes + CHECKSUM_BYTES
    try:
        with Path(file.path).open("rb") as source:
            source.seek(file.first * record_bytes)
            data = source.read(len(file.pages) * record_bytes)
    except OSError as error:
        raise PageFileError(f"{file.path}: {error}") from None
    contents = []
    for start in range(0, len(file.pages) * record_bytes, record_bytes):
        content = data[start : start + page_bytes]
        if data[start + page_bytes : start + record_bytes] != _checksum(content):
            raise PageFileError(f"{file.path}: a page is not what was written")
        contents.append(content)
    return contents


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=CHECKSUM_BYTES).digest()
