"""The HTTP side of one answer: sent with a time limit, and aware of a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from pie_daemon.gateway.errors import ApiError
from pie_daemon.gateway.following import ClientGone

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
DONE = b"data: [DONE]\n\n"
COMMENT = b": still working\n\n"


def event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class Exchange:
    def __init__(self, scope: Scope, receive: Receive, send: Send, write_timeout_s: float) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._write_timeout_s = write_timeout_s
        self._streaming = False

    async def watch(self, on_leave: Callable[[], None]) -> None:
        """Waits for the client to close its connection; the body has been read before."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        on_leave()

    async def answer(self, value: Any, status: int = 200, headers: Any = None) -> None:
        body = msgspec.json.encode(value)
        length = {"content-length": str(len(body))}
        await self._start(status, {**_JSON, **length, **(headers or {})})
        await self._put({"type": "http.response.body", "body": body, "more_body": False})

    async def stream(self, data: bytes) -> None:
        """A piece of a stream, which begins with the first one."""
        if not self._streaming:
            self._streaming = True
            await self._start(200, _EVENTS)
        await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes) -> None:
        await self.stream(data)
        await self._put({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: ApiError) -> None:
        """A status while there is still one to give, else an event that ends the stream."""
        if self._streaming:
            await self.end_stream(event(error.body()))
        else:
            await self.answer(error.body(), error.status, error.headers())

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._put({"type": "http.response.start", "status": status, "headers": pairs})

    async def _put(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._send(message)
        except TimeoutError:
            self._scope["state"]["abort"]()
            raise ClientGone from None
