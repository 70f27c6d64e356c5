"""Programs and blobs that arrive in chunks, are checked against their hash, and can resume.

A partial file is named by (user, hash), so that a client that comes back goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pie_client.wire import UploadBegin, UploadChunk, UploadReady
from pie_daemon.errors import PieError
from pie_daemon.listener.config import ListenerConfig

_T = TypeVar("_T")
_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass
class Upload:
    id: str
    username: str
    request: UploadBegin
    path: Path
    num_bytes: int
    """Received and written: [0, num_bytes)."""
    touched_s: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uploads:
    """The unfinished uploads of all users. File work runs on `executor`, which has one worker, so
    that it happens in the order of the requests; the rest runs in the loop.
    """

    def __init__(self, directory: Path, executor: Executor) -> None:
        self._directory = directory
        self._executor = executor
        self._by_id: dict[str, Upload] = {}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._by_id)

    async def begin(
        self, username: str, request: UploadBegin, config: ListenerConfig, limit_bytes: int
    ) -> UploadReady:
        """A new upload, or the rest of one that stopped; the latest begin takes over."""
        _check_request(request, limit_bytes)
        owner = hashlib.sha256(username.encode()).hexdigest()[:16]
        path = self._directory / f"{owner}-{request.sha256}.part"
        for other in [upload for upload in self._by_id.values() if upload.path == path]:
            # Waits for a chunk that is being written.
            async with other.lock:
                self._by_id.pop(other.id, None)
        self._check_quota(username, config)
        num_bytes = await self._run(_open_partial, path, request.size)
        upload = Upload(secrets.token_hex(8), username, request, path, num_bytes, time.monotonic())
        self._by_id[upload.id] = upload
        return UploadReady(upload=upload.id, offset=num_bytes)

    async def chunk(self, username: str, request: UploadChunk, chunk_bytes: int) -> int:
        """The offset up to which everything has arrived."""
        if len(request.data) > chunk_bytes:
            raise PieError(
                "invalid-argument", f"a chunk has at most {chunk_bytes} bytes, see `welcome`"
            )
        async with self._locked(username, request.upload) as upload:
            if request.offset != upload.num_bytes:
                raise PieError(
                    "invalid-argument",
                    f"the chunk at {request.offset} does not follow the {upload.num_bytes} bytes "
                    "that have arrived",
                )
            if request.offset + len(request.data) > upload.request.size:
                raise PieError(
                    "invalid-argument",
                    f"more than the {upload.request.size} bytes that upload-begin announced",
                )
            await self._run(_write, upload.path, request.offset, request.data)
            upload.num_bytes += len(request.data)
            upload.touched_s = time.monotonic()
            return upload.num_bytes

    @asynccontextmanager
    async def finished(self, username: str, upload_id: str) -> AsyncIterator[tuple[Upload, Path]]:
        """The complete file with the right hash, under the name the client gave; deleted after."""
        async with self._locked(username, upload_id) as upload:
            if upload.num_bytes != upload.request.size:
                raise PieError(
                    "invalid-argument",
                    f"{upload.num_bytes} of {upload.request.size} bytes have arrived",
                )
            del self._by_id[upload_id]
            directory = upload.path.with_suffix(f".{upload.id}")
            file = directory / f"{upload.request.stem or 'program'}.wasm"
            try:
                await self._run(_verify, upload.path, upload.request.sha256)
                await self._run(_move, upload.path, file)
                yield upload, file
            finally:
                # The one worker does this before whatever the client asks next.
                self._executor.submit(_delete, upload.path, file)

    async def abort(self, username: str, upload_id: str) -> None:
        async with self._locked(username, upload_id) as upload:
            del self._by_id[upload_id]
            await self._run(upload.path.unlink, True)

    def expire(self, older_than_s: float) -> None:
        """Forgets uploads without a chunk for so long, also those of earlier daemons."""
        limit_s = time.monotonic() - older_than_s
        for upload in [u for u in self._by_id.values() if u.touched_s < limit_s]:
            if not upload.lock.locked():
                del self._by_id[upload.id]
        active = {upload.path for upload in self._by_id.values()}
        self._executor.submit(_sweep, self._directory, active, time.time() - older_than_s)

    @asynccontextmanager
    async def _locked(self, username: str, upload_id: str) -> AsyncIterator[Upload]:
        """Chunks are written in the order in which they came."""
        missing = PieError("not-found", f"no upload {upload_id}; start again with upload-begin")
        upload = self._by_id.get(upload_id)
        if upload is None or upload.username != username:
            raise missing
        async with upload.lock:
            if upload_id not in self._by_id:
                raise missing
            yield upload

    def _check_quota(self, username: str, config: ListenerConfig) -> None:
        unfinished = sum(upload.username == username for upload in self._by_id.values())
        if unfinished >= config.max_uploads:
            raise PieError(
                "quota", f"{unfinished} uploads are unfinished; commit or abort one first"
            )

    async def _run(self, function: Callable[..., _T], *args: object) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        except OSError as error:
            raise PieError("exhausted", f"cannot store the upload: {error.strerror}") from error


def _check_request(request: UploadBegin, limit_bytes: int) -> None:
    if request.size > limit_bytes:
        raise PieError("quota", f"{request.size} bytes are over the limit of {limit_bytes}")
    if request.stem is not None and not _STEM.fullmatch(request.stem):
        raise PieError("invalid-argument", f"{request.stem!r} is no plain file name")


def _open_partial(path: Path, size: int) -> int:
    """How many bytes of it are already there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        num_bytes = os.fstat(descriptor).st_size
        if num_bytes > size:
            os.ftruncate(descriptor, 0)
            return 0
        return num_bytes
    finally:
        os.close(descriptor)


def _write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def _verify(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise PieError(
            "invalid-argument",
            f"the content has sha256 {found}, announced was {expected}; upload it again",
        )


def _move(partial: Path, file: Path) -> None:
    file.parent.mkdir(mode=0o700)
    partial.rename(file)


def _delete(partial: Path, file: Path) -> None:
    partial.unlink(missing_ok=True)
    file.unlink(missing_ok=True)
    if file.parent.is_dir():
        file.parent.rmdir()


def _sweep(directory: Path, active: set[Path], limit_s: float) -> None:
    for path in directory.glob("*.part"):
        if path not in active and path.stat().st_mtime < limit_s:
            path.unlink(missing_ok=True)
