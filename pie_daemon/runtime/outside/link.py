"""The line to one MCP server: started at its first use, kept, and started again when it breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import structlog

from pie_daemon.errors import Code, PieError
from pie_daemon.runtime.outside.config import McpConfig, McpServer
from pie_daemon.runtime.outside.connection import Connection
from pie_daemon.tasks import Tasks

if TYPE_CHECKING:
    from mcp import Client

_MAX_HANGS = 3
"""Calls in a row that ran out of time before the server is started again."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_TOLD_S = 0.5
_CLOSE_S = 8.0
_CODES: dict[int, Code] = {-32601: "unsupported", -32602: "invalid-argument", -32001: "timeout"}
T = TypeVar("T")
_log = structlog.get_logger()


class Link:
    """Belongs to the loop's thread."""

    def __init__(self, name: str, server: McpServer, config: Callable[[], McpConfig]) -> None:
        self.server = server
        self._name = name
        self._config = config
        self._turns = asyncio.Semaphore(config().calls)
        self._tasks = Tasks(f"mcp {name}")
        self._connection: Connection | None = None
        self._num_failures = 0
        self._num_hangs = 0
        self._not_before = 0.0
        self._last_error: PieError | None = None

    async def request(self, send: Callable[[Client], Awaitable[T]]) -> T:
        """
        Raises:
            PieError: timeout; closed, when the server is down or goes down meanwhile; or what it
                answered instead of a result.
        """
        connection = self._connected()
        client = await asyncio.shield(connection.client)
        limit_s = self._config().call_s
        try:
            async with asyncio.timeout(limit_s) as scope, self._turns:
                with connection.ending(scope):
                    result = await send(client)
        except PieError:
            raise
        except TimeoutError:
            raise self._out_of_time(connection, limit_s) from None
        except Exception as error:  # noqa: BLE001 -- the edge of a library: programs get a PieError
            raise await self._explained(connection, error) from None
        self._num_failures = self._num_hangs = 0
        return result

    def _connected(self) -> Connection:
        """The line, which may still be on its way."""
        if self._connection is not None and not self._connection.is_ending:
            return self._connection
        left_s = self._not_before - time.monotonic()
        if left_s > 0 and (last := self._last_error) is not None:
            raise PieError(last.code, f"{last.message}; it is tried again in {left_s:.1f} s")
        self._connection = Connection(self._name, self.server)
        self._tasks.spawn(self._live(self._connection), "connection")
        return self._connection

    async def _live(self, connection: Connection) -> None:
        error = await connection.keep(self._config().start_s)
        if error is None:
            return
        self._last_error = error
        pause_s = _FIRST_PAUSE_S * 2 ** (self._num_failures - 1) if self._num_failures else 0.0
        pause_s = min(pause_s, _LONGEST_PAUSE_S)
        self._num_failures += 1
        self._not_before = time.monotonic() + pause_s
        _log.warning(
            "mcp_server_ended", server=self._name, reason=error.message, next_start_in_s=pause_s
        )

    def _out_of_time(self, connection: Connection, limit_s: float) -> PieError:
        if connection.error is not None:
            return connection.error
        self._num_hangs += 1
        if self._num_hangs >= _MAX_HANGS:
            self._num_hangs = 0
            connection.end(f"has let {_MAX_HANGS} calls in a row run out of time")
        message = f"MCP server {self._name!r} has not answered within {limit_s:g} s (mcp.call_s)"
        return PieError("timeout", message)

    async def _explained(self, connection: Connection, error: Exception) -> PieError:
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        failure = error if isinstance(error, MCPError) else None
        if failure is None or failure.code == CONNECTION_CLOSED or connection.is_ending:
            await connection.told(_CLOSE_S if connection.is_ending else _TOLD_S)
            if connection.error is not None:
                return connection.error
        message = f"MCP server {self._name!r} answered: {error}"
        if failure is None:
            return PieError("internal", message)
        if failure.message == "Session terminated":  # a server on HTTP that was restarted
            connection.end("has forgotten this client")
            return PieError("closed", f"MCP server {self._name!r} was restarted; ask again")
        return PieError(_CODES.get(failure.code, "internal"), message)

    def ask_to_end(self) -> None:
        if self._connection is not None:
            self._connection.end()

    async def close(self) -> None:
        """Returns once the server has ended."""
        self.ask_to_end()
        if self._connection is not None:
            await self._connection.told(_CLOSE_S)
        await self._tasks.close()
