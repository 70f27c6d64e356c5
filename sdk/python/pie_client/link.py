"""One connection to the daemon: from hello until it is lost. It never reconnects by itself."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import zmq

from pie_client import wire
from pie_client.codec import NOTICE, WireError, decode_reply, encode
from pie_client.errors import LinkLost, NotRunning, PieError, VersionMismatch
from pie_client.loop_socket import LoopSocket

_R = TypeVar("_R", bound=wire.Reply)
_ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024
_NEVER_MS: Final = 2**31 - 1
_ENDED: Final = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_REASONS: Final = {
    zmq.EVENT_DISCONNECTED: "it closed the connection",
    zmq.EVENT_CLOSED: "nothing listens there",
}


class Link:
    """Requests with answers, notices without. `on_notice` and `on_lost` run in the loop's thread;
    `on_lost` comes once, not after `close`.
    """

    welcome: wire.Welcome

    def __init__(
        self,
        endpoint: str,
        on_notice: Callable[[wire.AnyReply], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._endpoint = endpoint
        self._on_notice = on_notice
        self._on_lost = on_lost
        self._ids = itertools.count(NOTICE + 1)
        self._pending: dict[int, tuple[asyncio.Future[Any], Callable[[Any], None] | None]] = {}
        self._lost: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._sent_s = self._heard_s = self._loop.time()

    async def open(self, name: str, timeout_s: float) -> None:
        """Connects and says hello; NotRunning, VersionMismatch or PieError when it cannot."""
        self._connect()
        hello = wire.Hello(
            versions=[wire.PROTOCOL_VERSION], client=name, features=[wire.EVENTS_TOGETHER]
        )
        try:
            self.welcome = await self.request(hello, wire.Welcome, timeout_s)
        except LinkLost as error:
            raise NotRunning(self._endpoint, str(error)) from None
        except PieError as error:
            raise self._explain(error, timeout_s) from None
        self._spawn(self._keep_alive())

    async def request(
        self,
        message: wire.Request,
        expected: type[_R],
        timeout_s: float | None,
        on_reply: Callable[[_R], None] | None = None,
    ) -> _R:
        """The answer; PieError if it is an error. `on_reply` sees it before any later message."""
        if self._lost is not None:
            raise LinkLost(self._lost)
        correlation = next(self._ids)
        future: asyncio.Future[wire.Reply] = self._loop.create_future()
        self._pending[correlation] = (future, on_reply)
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(message, correlation)
                reply = await future
        except TimeoutError:
            what = f"no answer within {timeout_s:g} s" if timeout_s else "no answer"
            raise PieError("timeout", f"{what} from {self._endpoint}") from None
        finally:
            self._pending.pop(correlation, None)
        if isinstance(reply, expected):
            return reply
        if isinstance(reply, wire.Error):
            raise PieError(reply.code, reply.message, reply.detail)
        raise PieError("internal", f"the daemon answered with {type(reply).__name__}")

    def notify(self, message: wire.Request) -> bool:
        """Sends without asking for an answer; False when it cannot be sent now."""
        if self._lost is not None:
            return False
        if not self._socket.send(encode(message, NOTICE)):
            return False
        self._sent_s = self._loop.time()
        return True

    async def close(self) -> None:
        """Ends it from this side."""
        if self._lost is None:
            self._lost = "the client was closed"
        self._fail_pending()
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            # Also when the closing itself is cancelled.
            self._dealer.disable_monitor()
            self._monitor.close()
            self._socket.close()
            self._context.term()

    # --- inside -------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer = dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.MAXMSGSIZE, _ANSWER_LIMIT_BYTES)
        # A silent reconnect would meet a daemon that does not know this client any more. With -1,
        # which means never, libzmq throws away what had arrived before the connection ended.
        dealer.setsockopt(zmq.RECONNECT_IVL, _NEVER_MS)
        dealer.ipv6 = "[" in self._endpoint
        self._monitor = LoopSocket(dealer.get_monitor_socket(_ENDED), self._on_end)
        self._socket = LoopSocket(dealer, self._on_message)
        try:
            dealer.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._end(f"not an endpoint: {error.strerror}")

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine, name="pie_client.link")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: coroutine.close())

    async def _send(self, message: wire.Request, correlation: int) -> None:
        frames = encode(message, correlation)
        welcome: wire.Welcome | None = getattr(self, "welcome", None)
        limit_bytes = welcome.max_message_bytes if welcome else wire.MAX_MESSAGE_BYTES
        if len(frames[1]) > limit_bytes:
            # The daemon would cut the connection, and whatever was sent after it would be lost.
            raise PieError(
                "invalid-argument",
                f"a message of {len(frames[1])} bytes is over the daemon's limit of {limit_bytes}",
            )
        await self._socket.send_in_turn(frames)
        self._sent_s = self._loop.time()

    def _on_message(self, frames: list[bytes]) -> None:
        if self._lost is not None:
            return
        self._heard_s = self._loop.time()
        try:
            correlation, reply = decode_reply(frames, _ANSWER_LIMIT_BYTES)
        except WireError as error:
            self._end(f"it does not speak Pie's protocol ({error.message})")
            return
        self._dispatch(correlation, reply)

    def _dispatch(self, correlation: int, reply: wire.AnyReply) -> None:
        if isinstance(reply, wire.Goodbye):
            self._end(reply.reason)
        elif isinstance(reply, wire.Error) and reply.detail.get("hello"):
            self._end("it has ended this session")
        elif correlation == NOTICE:
            self._on_notice(reply)
        elif pending := self._pending.pop(correlation, None):
            future, on_reply = pending
            if future.done():
                return
            if on_reply is not None and not isinstance(reply, wire.Error):
                on_reply(reply)
            future.set_result(reply)

    def _on_end(self, frames: list[bytes]) -> None:
        event, _ = struct.unpack("=hi", frames[0])
        # What arrived before the end counts: answers, and the reason in a goodbye.
        while self._lost is None and self._socket.read():
            pass
        self._end(_REASONS.get(event, "the handshake failed; is it a Pie daemon?"))

    async def _keep_alive(self) -> None:
        heartbeat_s, timeout_s = self.welcome.heartbeat_s, self.welcome.timeout_s
        while self._lost is None:
            await asyncio.sleep(heartbeat_s / 2)
            now_s = self._loop.time()
            if now_s - self._heard_s > timeout_s:
                self._end(f"nothing was heard from it for {timeout_s:g} s")
            elif now_s - self._sent_s > heartbeat_s / 2:
                # Sent and forgotten: any answer counts as life.
                frames = encode(wire.Ping(), next(self._ids))
                await self._socket.send_in_turn(frames)
                self._sent_s = now_s

    def _end(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            self._fail_pending()
            self._on_lost(reason)

    def _fail_pending(self) -> None:
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(LinkLost(self._lost))

    def _explain(self, error: PieError, timeout_s: float) -> PieError:
        if error.code == "timeout":
            return NotRunning(self._endpoint, f"no answer to hello within {timeout_s:g} s")
        if error.code == "unsupported":
            mine = wire.PROTOCOL_VERSION
            text = f"this client speaks protocol version {mine}; the daemon says: {error.message}"
            return VersionMismatch("unsupported", text, error.detail)
        return error
