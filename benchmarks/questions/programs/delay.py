"""A longer way between two sockets: what goes in comes out later, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

ONE_READ = 1 << 16


class Way:
    """To a TCP port or the path of a Unix socket; each direction takes `delay_s`."""

    def __init__(self, to: int | Path, delay_s: float) -> None:
        self._to = to
        self._delay_s = delay_s
        self._connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(asyncio.create_task(self._follow(reader, writer)))

    async def close(self) -> None:
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        far_reader, far_writer = await self._connect()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, far_writer))
                both.create_task(self._carry(far_reader, writer))
        finally:
            writer.close()
            far_writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._to, Path):
            return await asyncio.open_unix_connection(self._to)
        return await asyncio.open_connection("127.0.0.1", self._to)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(_deliver(under_way, writer))
            while data := await reader.read(ONE_READ):
                under_way.put_nowait((loop.time() + self._delay_s, data))
            under_way.put_nowait((loop.time() + self._delay_s, b""))


async def _deliver(
    under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due_s, data = await under_way.get()
        await asyncio.sleep(due_s - loop.time())
        if not data:
            writer.write_eof()
            return
        writer.write(data)


@contextlib.asynccontextmanager
async def to_port(port: int, delay_s: float) -> AsyncIterator[int]:
    """The port to connect to instead; the same one when there is no delay."""
    if not delay_s:
        yield port
        return
    way = Way(port, delay_s)
    async with await asyncio.start_server(way.accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await way.close()


@contextlib.asynccontextmanager
async def to_path(path: Path, delay_s: float) -> AsyncIterator[Path]:
    """The same for the path of a Unix socket."""
    if not delay_s:
        yield path
        return
    way = Way(path, delay_s)
    far = path.with_suffix(".far")
    async with await asyncio.start_unix_server(way.accept, far):
        yield far
        await way.close()
