"""One life of an MCP server, from its start until either side ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from pie_daemon import __version__
from pie_daemon.errors import PieError
from pie_daemon.runtime.outside.config import McpServer

if TYPE_CHECKING:
    from mcp import Client

_CLOSED = "was closed"
_log = structlog.get_logger()


class Connection:
    """Whoever makes one runs `keep` in a task of its own."""

    def __init__(self, name: str, server: McpServer) -> None:
        self._name = name
        self._server = server
        self._scopes: set[asyncio.Timeout] = set()
        self._over = asyncio.Event()
        self._ending = asyncio.Event()
        self._asked: str | None = None
        self._shown: str | None = None
        self.client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        """Raises the PieError that kept it from being."""
        self.error: PieError | None = None
        """Why it ended."""

    @property
    def is_ending(self) -> bool:
        return self._ending.is_set()

    def end(self, reason: str = _CLOSED) -> None:
        self._asked = reason
        self._ending.set()

    async def told(self, timeout_s: float) -> None:
        """Waits for the end, and with it for `error`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._over.wait()
        except TimeoutError:
            return

    @contextmanager
    def ending(self, scope: asyncio.Timeout) -> Iterator[None]:
        """Lets that scope run out of time at once when this ends: nothing more will come."""
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)

    async def keep(self, start_s: float) -> PieError | None:
        """Connects and holds the line; why it ended, or None when it was to be closed."""
        error = PieError("closed", f"MCP server {self._name!r} {_CLOSED}")
        try:
            reason = await self._lived(start_s)
            error = PieError("closed", f"MCP server {self._name!r} {reason}")
        except PieError as refusal:
            error = refusal
        finally:
            self._finish(error)
        return None if self._asked == _CLOSED else error

    async def _lived(self, start_s: float) -> str:
        try:
            async with asyncio.timeout(start_s) as starting, self._connected() as client:
                starting.reschedule(None)
                self.client.set_result(client)
                _log.info("mcp_server_ready", server=self._name)
                await self._ending.wait()
        except TimeoutError:
            return f"did not say what it is within {start_s:g} s (mcp.start_s)"
        except PieError:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever the library raises ends only this life
            return self._asked or self._shown or f"failed: {_innermost(error)}"
        return self._asked or self._shown or "closed the line"

    def _finish(self, error: PieError) -> None:
        self.error = error
        self._ending.set()
        self._over.set()
        if not self.client.done():
            self.client.set_exception(error)
            self.client.exception()  # seen, also when nobody waits for it
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(0)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        # Takes a second the first time, and other programs' work goes on on this loop.
        mcp = await asyncio.to_thread(__import__, "mcp")
        info = mcp.types.Implementation(name="pie", version=__version__)
        async with self._transport() as transport:
            async with mcp.Client(transport, client_info=info, cache=None) as client:
                yield client

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        server = self._server
        if server.url is not None:
            from pie_daemon.runtime.outside.mcp_http import connect

            async with connect(server.url, server.headers) as streams:
                yield streams
            return
        from pie_daemon.runtime.outside.process import ServerProcess

        process = ServerProcess(self._name, server, self._ending)
        try:
            yield process.connect()
        finally:
            self._shown = process.how_it_ended()


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
