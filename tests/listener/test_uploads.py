"""Uploads: chunks with credit, hashes, resumption, limits."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pie_client import wire
from pie_daemon.listener.config import ListenerConfig
from support.fake_runtime import until
from support.listening import MAX_PROGRAM_BYTES, Listening, listening
from support.raw_client import RawClient, raw_client

CONFIG = ListenerConfig(chunk_bytes=4096, max_blob_bytes=50_000, max_uploads=2)
DATA = bytes(range(256)) * 50  # 12800 bytes: three chunks and a bit


@pytest.fixture
async def daemon() -> AsyncIterator[Listening]:
    async with listening(CONFIG) as running:
        yield running


@pytest.fixture
async def client(daemon: Listening) -> AsyncIterator[RawClient]:
    async with raw_client(daemon.ipc) as connected:
        yield connected


def announce(data: bytes, **fields: str) -> wire.UploadBegin:
    digest = hashlib.sha256(data).hexdigest()
    return wire.UploadBegin(sha256=digest, size=len(data), **fields)


async def send(client: RawClient, upload: str, data: bytes, start: int, end: int) -> None:
    for offset in range(start, end, 4096):
        chunk = wire.UploadChunk(upload=upload, offset=offset, data=data[offset:][:4096])
        await client.ask(chunk, wire.UploadProgress)


async def upload(client: RawClient, data: bytes, **fields: str) -> wire.Uploaded | wire.Error:
    ready = await client.ask(announce(data, **fields), wire.UploadReady)
    await send(client, ready.upload, data, ready.offset, len(data))
    number = await client.send(wire.UploadCommit(upload=ready.upload))
    correlation, reply = await client.receive()
    assert correlation == number
    assert isinstance(reply, wire.Uploaded | wire.Error)
    return reply


def files(daemon: Listening) -> list[Path]:
    return list((daemon.directory / "uploads").iterdir())


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"name": "given", "stem": "file"}, "given"), ({"stem": "file"}, "file"), ({}, "program")],
)
async def test_a_program_is_installed(
    daemon: Listening, client: RawClient, fields: dict[str, str], name: str
) -> None:
    """The committed content is what the store gets, under the right name; nothing is left over."""
    reply = await upload(client, DATA, **fields)
    assert isinstance(reply, wire.Uploaded)
    assert reply.program is not None
    assert reply.program.name == name
    assert list(daemon.programs.installed.values()) == [DATA]
    await until(lambda: files(daemon) == [])


async def test_a_rejected_program_tells_why(daemon: Listening, client: RawClient) -> None:
    """The store's refusal is the answer to the commit."""
    reply = await upload(client, b"bad wasm", stem="agent")
    assert reply == wire.Error(code="invalid-argument", message="agent.wasm is not a component")
    await until(lambda: files(daemon) == [])


async def test_a_wrong_hash_is_refused_and_starts_anew(
    daemon: Listening, client: RawClient
) -> None:
    """Content with another hash is never installed, and not kept for a resumption either."""
    ready = await client.ask(announce(DATA), wire.UploadReady)
    await send(client, ready.upload, DATA[::-1], 0, len(DATA))
    error = await client.ask(wire.UploadCommit(upload=ready.upload), wire.Error)
    assert error.code == "invalid-argument"
    assert hashlib.sha256(DATA[::-1]).hexdigest() in error.message
    assert daemon.programs.installed == {}
    assert (await client.ask(announce(DATA), wire.UploadReady)).offset == 0


async def test_a_half_finished_upload_resumes(daemon: Listening, client: RawClient) -> None:
    """Another connection of the same user goes on where the first one stopped."""
    ready = await client.ask(announce(DATA), wire.UploadReady)
    await send(client, ready.upload, DATA, 0, 8192)
    async with raw_client(daemon.ipc) as other:
        again = await other.ask(announce(DATA), wire.UploadReady)
        assert again.offset == 8192
        assert again.upload != ready.upload
        # The earlier one has ended with that.
        chunk = wire.UploadChunk(upload=ready.upload, offset=8192, data=b"x")
        assert (await client.ask(chunk, wire.Error)).code == "not-found"
        await send(other, again.upload, DATA, 8192, len(DATA))
        await other.ask(wire.UploadCommit(upload=again.upload), wire.Uploaded)
    assert list(daemon.programs.installed.values()) == [DATA]


async def test_an_upload_survives_a_restart(client: RawClient, daemon: Listening) -> None:
    """What a former daemon has received counts."""
    ready = await client.ask(announce(DATA), wire.UploadReady)
    await send(client, ready.upload, DATA, 0, 4096)
    await client.ask(wire.UploadAbort(upload=ready.upload), wire.Done)
    ready = await client.ask(announce(DATA), wire.UploadReady)
    assert ready.offset == 0
    await send(client, ready.upload, DATA, 0, 4096)
    [part] = files(daemon)
    kept = part.read_bytes()
    async with listening(CONFIG) as second:
        (second.directory / "uploads" / part.name).write_bytes(kept)
        async with raw_client(second.ipc) as other:
            assert (await other.ask(announce(DATA), wire.UploadReady)).offset == 4096


async def test_chunks_must_follow_each_other(client: RawClient) -> None:
    """A chunk in the wrong place, too large, or beyond the end is refused; the rest goes on."""
    ready = await client.ask(announce(DATA), wire.UploadReady)
    for offset, data in ((4096, b"x"), (0, bytes(4097))):
        chunk = wire.UploadChunk(upload=ready.upload, offset=offset, data=data)
        assert (await client.ask(chunk, wire.Error)).code == "invalid-argument"
    error = await client.ask(wire.UploadCommit(upload=ready.upload), wire.Error)
    assert "0 of 12800 bytes" in error.message
    await send(client, ready.upload, DATA, 0, len(DATA))
    chunk = wire.UploadChunk(upload=ready.upload, offset=len(DATA), data=b"x")
    assert "more than" in (await client.ask(chunk, wire.Error)).message
    await client.ask(wire.UploadCommit(upload=ready.upload), wire.Uploaded)


async def test_pipelined_chunks_arrive_in_order(daemon: Listening, client: RawClient) -> None:
    """Chunks sent without waiting are written in the order in which they were sent."""
    ready = await client.ask(announce(DATA), wire.UploadReady)
    for offset in range(0, len(DATA), 1000):
        data = DATA[offset : offset + 1000]
        await client.send(wire.UploadChunk(upload=ready.upload, offset=offset, data=data))
    await client.ask(wire.UploadCommit(upload=ready.upload), wire.Uploaded)
    assert list(daemon.programs.installed.values()) == [DATA]


async def test_limits(client: RawClient) -> None:
    """Too large, too many, and names that are no plain names are refused before any byte."""
    digest = "0" * 64
    large = wire.UploadBegin(sha256=digest, size=MAX_PROGRAM_BYTES + 1)
    assert (await client.ask(large, wire.Error)).code == "quota"
    odd = wire.UploadBegin(sha256=digest, size=1, stem="../evil")
    assert (await client.ask(odd, wire.Error)).code == "invalid-argument"
    for number in range(2):
        await client.ask(announce(b"%d" % number), wire.UploadReady)
    assert (await client.ask(announce(b"more"), wire.Error)).code == "quota"


async def test_uploads_of_others_do_not_exist(daemon: Listening, client: RawClient) -> None:
    """One user cannot write into, commit or abort the upload of another one."""
    ready = await client.ask(announce(DATA), wire.UploadReady)
    async with raw_client(daemon.tcp) as other:
        for request in (
            wire.UploadChunk(upload=ready.upload, offset=0, data=b"x"),
            wire.UploadCommit(upload=ready.upload),
            wire.UploadAbort(upload=ready.upload),
        ):
            assert (await other.ask(request, wire.Error)).code == "not-found"
        assert (await other.ask(announce(DATA), wire.UploadReady)).offset == 0


async def test_a_blob_reaches_its_instance(daemon: Listening, client: RawClient) -> None:
    """A blob travels like a program and ends in the instance."""
    launched = await client.ask(wire.Launch(program="wait"), wire.Launched)
    reply = await upload(client, DATA, name="image", instance=launched.instance)
    assert reply == wire.Uploaded(program=None)
    assert daemon.supervisor.all[launched.instance].blobs == [("image", DATA)]
    large = wire.UploadBegin(sha256="0" * 64, size=50_001, instance=launched.instance)
    assert (await client.ask(large, wire.Error)).code == "quota"
    nobody = wire.UploadBegin(sha256="0" * 64, size=1, instance="nobody")
    assert (await client.ask(nobody, wire.Error)).code == "not-found"


async def test_old_uploads_expire(daemon: Listening) -> None:
    """Unfinished uploads that nobody goes on with leave memory and disk."""
    config = ListenerConfig(heartbeat_s=0.02, upload_expiry_s=3600)
    async with listening(config) as running:
        stale = running.directory / "uploads" / "old.part"
        stale.write_bytes(b"x")
        long_ago_s = time.time() - 7200
        os.utime(stale, (long_ago_s, long_ago_s))
        async with raw_client(running.ipc) as client:
            ready = await client.ask(announce(DATA), wire.UploadReady)
            await until(lambda: not stale.exists())
            await send(client, ready.upload, DATA, 0, 4096)


async def test_a_full_disk_is_exhausted(client: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a chunk cannot be written the client learns why and may try again."""
    ready = await client.ask(announce(DATA), wire.UploadReady)
    chunk = wire.UploadChunk(upload=ready.upload, offset=0, data=DATA[:4096])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pie_daemon.listener.uploads._write", full)
        error = await client.ask(chunk, wire.Error)
    assert (error.code, "No space left" in error.message) == ("exhausted", True)
    await client.ask(chunk, wire.UploadProgress)
