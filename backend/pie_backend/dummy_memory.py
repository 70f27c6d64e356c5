"""What the dummy backend keeps where a model keeps KV.

Each slot holds its token and a mark: a hash of the token, its position and adapter, and the marks
of all that it saw, as its page table showed them when it was computed. So the mark of a token
stands for everything that its KV would depend on, and what was computed from wrong pages, with the
wrong tokens hidden or with the wrong adapter stays wrong for ever after.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from pie_backend.base import BackendError
from pie_backend.batch import PageFile, Row
from pie_backend.page_files import read_pages, write_pages

MARK_BYTES = 8
_TOKEN_BYTES = 4
_UNWRITTEN = b"\xff" * MARK_BYTES
"""As likely as any other mark: once in 2**64."""

Hidden = Sequence[tuple[int, int]]


def expected_mark(
    tokens: Sequence[int], hidden: Sequence[Hidden], adapters: Sequence[str | None]
) -> bytes:
    """Of the last one, computed without pages: hidden[i] is what token i did not see, adapters[i]
    what computed it."""
    marks = b""
    for index, token in enumerate(tokens):
        marks += _mark(_seen(marks, hidden[index]), token, index, adapters[index])
    return marks[-MARK_BYTES:]


def extended_mark(seen: blake2b, token: int, position: int) -> bytes:
    """Of a token that sees what was hashed, which from now on includes it."""
    mark = _mark(seen, token, position, None)
    seen.update(mark)
    return mark


def seen_nothing() -> blake2b:
    return blake2b(digest_size=MARK_BYTES)


def _seen(marks: bytes, hidden: Hidden) -> blake2b:
    """Of a context's first tokens without the hidden ones."""
    seen = seen_nothing()
    start = 0
    for first, end in hidden:
        seen.update(marks[start * MARK_BYTES : first * MARK_BYTES])
        start = end
    seen.update(marks[start * MARK_BYTES :])
    return seen


def _mark(seen: blake2b, token: int, position: int, adapter: str | None) -> bytes:
    own = seen.copy()
    own.update(struct.pack("<II", token, position))
    if adapter is not None:
        own.update(adapter.encode())
    return own.digest()


def seen_places(bits: bytes) -> list[int]:
    """Which tokens of the context a bit row shows."""
    return [
        8 * i + bit for i, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1
    ]


class Memory:
    """Pages of slots."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self._page_size = page_size
        self._tokens = bytearray(_TOKEN_BYTES * num_pages * page_size)
        self._marks = bytearray(_UNWRITTEN * (num_pages * page_size))
        self._slots: dict[int, bytes] = {}
        """Pages in host memory."""

    def copy(self, source: int, destination: int) -> None:
        for memory, size in ((self._tokens, _TOKEN_BYTES), (self._marks, MARK_BYTES)):
            memory[self._span(destination, size)] = memory[self._span(source, size)]

    def evict(self, page: int, slot: int) -> None:
        """To host memory."""
        self._slots[slot] = self._content(page)

    def restore(self, slot: int, page: int) -> None:
        """A slot gives its content once: who wants it again has it on the device.

        Raises:
            BackendError: it holds nothing.
        """
        if slot not in self._slots:
            raise BackendError(f"slot {slot} holds nothing to restore")
        self._fill(page, self._slots.pop(slot))

    def store(self, file: PageFile) -> None:
        """Raises: PageFileError."""
        write_pages(file, map(self._content, file.pages))

    def load(self, file: PageFile) -> None:
        """Raises: PageFileError."""
        contents = read_pages(file, self._page_size * (_TOKEN_BYTES + MARK_BYTES))
        for page, content in zip(file.pages, contents, strict=True):
            self._fill(page, content)

    def _fill(self, page: int, content: bytes) -> None:
        tokens_bytes = self._page_size * _TOKEN_BYTES
        self._tokens[self._span(page, _TOKEN_BYTES)] = content[:tokens_bytes]
        self._marks[self._span(page, MARK_BYTES)] = content[tokens_bytes:]

    def _content(self, page: int) -> bytes:
        return bytes(
            self._tokens[self._span(page, _TOKEN_BYTES)] + self._marks[self._span(page, MARK_BYTES)]
        )

    def write(self, row: Row) -> list[bytes]:
        """Computes the row; the marks of its tokens.

        Raises:
            BackendError: it reads slots that nobody wrote.
        """
        before = self._read_marks(row)
        positions: Iterable[int] = row.positions or range(row.start, row.start + len(row.tokens))
        if row.attention is not None:
            return self._write_masked(row, before, list(positions))
        seen = _seen(before, row.hidden)
        marks: list[bytes] = []
        for index, (token, position) in enumerate(
            zip(row.tokens, positions, strict=True), row.start
        ):
            mark = _mark(seen, token, position, row.adapter)
            self._put(row, index, token, mark)
            if not any(first <= index < end for first, end in row.hidden):
                seen.update(mark)
            marks.append(mark)
        return marks

    def _write_masked(self, row: Row, before: bytes, positions: list[int]) -> list[bytes]:
        known = [before[i : i + MARK_BYTES] for i in range(0, len(before), MARK_BYTES)]
        # Nobody has computed what comes later, so it stands for itself only.
        later = [
            b"later" + _mark(seen_nothing(), token, position, row.adapter)
            for token, position in zip(row.tokens, positions, strict=True)
        ]
        for number, bits in enumerate(row.attention or ()):
            index = row.start + number
            visible = set(seen_places(bits))
            seen = seen_nothing()
            for place in sorted(visible - {index}):
                seen.update(known[place] if place < index else later[place - row.start])
            if index not in visible:
                seen.update(b"not itself")
            mark = _mark(seen, row.tokens[number], positions[number], row.adapter)
            self._put(row, index, row.tokens[number], mark)
            known.append(mark)
        return known[row.start :]

    def tokens(self, row: Row, end: int) -> array[int]:
        """The context's first tokens, as the row's pages have them."""
        pages = b"".join(self._tokens[self._span(page, _TOKEN_BYTES)] for page in row.pages)
        return array("i", pages[: end * _TOKEN_BYTES])

    def _read_marks(self, row: Row) -> bytes:
        pages = b"".join(self._marks[self._span(page, MARK_BYTES)] for page in row.pages)
        marks = pages[: row.start * MARK_BYTES]
        if _UNWRITTEN in marks:
            raise BackendError(f"a row at {row.start} reads slots that nobody wrote")
        return marks

    def _put(self, row: Row, index: int, token: int, mark: bytes) -> None:
        slot = row.pages[index // self._page_size] * self._page_size + index % self._page_size
        struct.pack_into("<I", self._tokens, slot * _TOKEN_BYTES, token)
        self._marks[slot * MARK_BYTES : (slot + 1) * MARK_BYTES] = mark

    def _span(self, page: int, slot_bytes: int) -> slice:
        page_bytes = self._page_size * slot_bytes
        return slice(page * page_bytes, (page + 1) * page_bytes)
