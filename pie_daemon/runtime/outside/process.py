"""An MCP server as a child process: messages as lines over its stdin and stdout."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter
from pydantic import ValidationError

from pie_daemon.errors import PieError
from pie_daemon.runtime.outside.config import McpServer

MAX_MESSAGE_BYTES = 8 << 20
"""More in one line ends the server: what comes after it cannot be told from the rest of it."""
_INHERITED = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
_GRACE_S = 2.0
_LOOK_S = 0.02
_NUM_KEPT_LINES = 3
_KEPT_CHARS = 300
_log = structlog.get_logger()
_Incoming = MemoryObjectSendStream[SessionMessage | Exception]
_Outgoing = MemoryObjectReceiveStream[SessionMessage]


class ServerProcess:
    """One life of it. After the end, `how_it_ended` says why."""

    def __init__(self, name: str, server: McpServer, ended: asyncio.Event) -> None:
        """`ended` is set once nothing more will come."""
        self._name = name
        self._server = server
        self._problem: str | None = None
        self._said: deque[str] = deque(maxlen=_NUM_KEPT_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._ended = ended

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[Any, Any]]:
        """The streams of a transport, as `mcp.Client` takes it.

        Raises:
            PieError: not-found, when there is nothing to start.
        """
        process = self._process = await self._start()
        answers_in, answers = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        requests, requests_out = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as group, answers_in, answers, requests, requests_out:
            group.start_soon(self._read, process, answers_in)
            group.start_soon(self._write, process, requests_out)
            group.start_soon(self._listen, process)
            try:
                yield answers, requests
            finally:
                with anyio.CancelScope(shield=True):
                    await _stop(process)
                group.cancel_scope.cancel()

    def how_it_ended(self) -> str:
        code = self._process.returncode if self._process is not None else None
        problem = self._problem or (
            f"was ended by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
        )
        said = f"; it said: {' / '.join(self._said)}" if self._said else ""
        return f"{problem}{said}"

    async def _start(self) -> asyncio.subprocess.Process:
        server = self._server
        environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        assert server.command is not None
        try:
            return await asyncio.create_subprocess_exec(
                server.command,
                *server.args,
                env=environment | server.env,
                cwd=server.cwd,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=MAX_MESSAGE_BYTES,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise PieError(
                "not-found",
                f"MCP server {self._name!r} cannot be started: {error}; install "
                f"{server.command!r}, or put its full path into mcp.servers.{self._name}.command",
            ) from None

    async def _read(self, process: asyncio.subprocess.Process, answers: _Incoming) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                await answers.send(_parsed(line))
        except ValueError:
            self._problem = f"sent a message of more than {MAX_MESSAGE_BYTES} bytes"
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the session has ended first
        finally:
            self._ended.set()
            answers.close()

    async def _write(self, process: asyncio.subprocess.Process, requests: _Outgoing) -> None:
        assert process.stdin is not None
        with suppress(ConnectionError, anyio.ClosedResourceError):
            async for message in requests:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """What it says to people: into the log, and the end of it into the reason of its end."""
        assert process.stderr is not None
        while chunk := await process.stderr.read(4096):
            for line in chunk.decode(errors="replace").splitlines():
                if text := line.strip()[:_KEPT_CHARS]:
                    self._said.append(text)
                    _log.debug("mcp_server_says", server=self._name, text=text)


def _parsed(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError as error:
        return error


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Closes its stdin, which is how one asks; then signals, to it and all that it started."""
    if process.stdin is not None:
        process.stdin.close()
    for ask in (None, signal.SIGTERM, signal.SIGKILL):
        if ask is not None:
            _signal(process, ask)
        if await _gone(process):
            break
    _signal(process, signal.SIGKILL)  # what it started may have outlived it
    # A survivor may hold the pipes; nobody reads them any more.
    process._transport.close()  # type: ignore[attr-defined]


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _gone(process: asyncio.subprocess.Process) -> bool:
    """Looks at the exit code: `wait` would also wait for what holds the pipes."""
    for _ in range(round(_GRACE_S / _LOOK_S)):
        if process.returncode is not None:
            return True
        await asyncio.sleep(_LOOK_S)
    return False
