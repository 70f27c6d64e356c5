"""Sending a file in chunks, several on their way at a time."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from pie_client import wire

if TYPE_CHECKING:
    from pie_client.aio import AsyncClient


class Source(msgspec.Struct, frozen=True):
    """What is sent, and what is said about it beforehand."""

    file: BinaryIO
    size: int
    sha256: str
    stem: str | None


@contextmanager
def open_source(source: Path | str | bytes) -> Iterator[Source]:
    """A path (also as a string), or the bytes themselves."""
    stem = None if isinstance(source, bytes) else _stem(Path(source))
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, io.SEEK_END)
        yield Source(file, size, digest, stem)


async def send_chunks(
    client: AsyncClient,
    welcome: wire.Welcome,
    ready: wire.UploadReady,
    source: Source,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Everything from the daemon's offset on; at most its credit of chunks is unanswered."""
    source.file.seek(ready.offset)
    offset = ready.offset
    on_the_way: deque[asyncio.Future[wire.UploadProgress]] = deque()
    try:
        while offset < source.size or on_the_way:
            while offset < source.size and len(on_the_way) < welcome.credit:
                data = source.file.read(welcome.chunk_bytes)
                chunk = wire.UploadChunk(upload=ready.upload, offset=offset, data=data)
                request = client.request(chunk, wire.UploadProgress)
                on_the_way.append(asyncio.ensure_future(request))
                offset += len(data)
            reply = await on_the_way.popleft()
            if progress is not None:
                progress(reply.offset, source.size)
    finally:
        for future in on_the_way:
            future.cancel()
        await asyncio.gather(*on_the_way, return_exceptions=True)


def _stem(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip(".-")[:128] or "program"
