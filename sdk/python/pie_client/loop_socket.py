"""A ZeroMQ socket that an asyncio loop reads, without a future for every message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import zmq

# Messages read in a row before everybody else in the loop has a turn.
_BURST: Final = 64

Frames = Sequence[bytes]


class LoopSocket:
    """Belongs to the loop in which it was made; `on_message` gets the frames of each message.

    The futures of `zmq.asyncio` take a third of all processor time that a message costs a client.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[Any]], None],
        *,
        copies: bool = True,
    ) -> None:
        """The frames are bytes; where nothing copies them, `zmq.Frame`, which knows its sender."""
        self._socket = socket
        self._on_message = on_message
        self._copies = copies
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._looks_soon = False
        self._waiting: deque[tuple[Frames, asyncio.Future[None]]] = deque()
        self._loop.add_reader(self._fd, self._look)
        self._look_soon()

    def send(self, frames: Frames) -> bool:
        """False when there is no room for it now. Raises: zmq.ZMQError: it will never go out."""
        return not self._waiting and self._try_to_send(frames)

    async def send_in_turn(self, frames: Frames) -> None:
        """Waits for room, behind those that wait already. Given up when the socket is closed."""
        if not self.send(frames):
            sent = self._loop.create_future()
            self._waiting.append((frames, sent))
            await sent

    def read(self) -> bool:
        """Hands over what is there; True when there may be more."""
        for _ in range(_BURST):
            if self._socket.closed:
                return False
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=self._copies)
            except zmq.Again:
                return False
            self._on_message(frames)
        return True

    def close(self, linger_ms: int = 0) -> None:
        """What was sent has so long to leave."""
        self._loop.remove_reader(self._fd)
        self._socket.close(linger_ms)
        while self._waiting:
            self._conclude()

    def _try_to_send(self, frames: Frames) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        # Sending may have taken note of what has arrived; the descriptor does not tell again.
        if self._has(zmq.POLLIN):
            self._look_soon()
        return True

    def _has(self, event: int) -> bool:
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & event)

    def _look_soon(self) -> None:
        if not self._looks_soon:
            self._looks_soon = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """The descriptor tells of changes alone, so nothing may be left that nobody looks for."""
        self._looks_soon = False
        has_more = True
        try:
            has_more = self.read()
        finally:
            if has_more:
                self._look_soon()
        while self._waiting and self._has(zmq.POLLOUT):
            frames, sent = self._waiting[0]
            if not sent.cancelled() and not self._try_to_send(frames):
                return
            self._conclude()

    def _conclude(self) -> None:
        _, sent = self._waiting.popleft()
        if not sent.done():
            sent.set_result(None)
