"""A bare DEALER: sends what a test wants, sound or not, and decodes what comes back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import zmq
import zmq.asyncio

from pie_client import wire
from pie_client.codec import NOTICE, decode_reply, encode

_R = TypeVar("_R", bound=wire.Reply)


class RawClient:
    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self.socket = socket
        self.notices: list[wire.AnyReply] = []
        self._ids = itertools.count(1)

    async def send(self, message: wire.Request, correlation: int | None = None) -> int:
        number = next(self._ids) if correlation is None else correlation
        await self.socket.send_multipart(encode(message, number))
        return number

    async def receive(self) -> tuple[int, wire.AnyReply]:
        async with asyncio.timeout(10):
            frames = await self.socket.recv_multipart()
        return decode_reply(frames, 1 << 26)

    async def ask(self, message: wire.Request, expected: type[_R]) -> _R:
        """The answer; notices before it are kept in `notices`, other answers are dropped."""
        number = await self.send(message)
        while True:
            correlation, reply = await self.receive()
            if correlation == number:
                assert isinstance(reply, expected), reply
                return reply
            if correlation == NOTICE:
                self.notices.append(reply)

    async def hello(self) -> wire.Welcome:
        return await self.ask(wire.Hello(versions=[wire.PROTOCOL_VERSION]), wire.Welcome)

    async def event(self) -> wire.Event:
        """The next event, also one that came before an answer."""
        while True:
            notice = self.notices.pop(0) if self.notices else (await self.receive())[1]
            if isinstance(notice, wire.Event):
                return notice


@asynccontextmanager
async def raw_client(
    endpoint: str, *, hello: bool = True, receive_hwm: int = 1000
) -> AsyncIterator[RawClient]:
    """Connected, and greeted if not told otherwise; vanishes without a bye."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, receive_hwm)
    socket.connect(endpoint)
    client = RawClient(socket)
    try:
        if hello:
            await client.hello()
        yield client
    finally:
        socket.close(0)
        context.term()
