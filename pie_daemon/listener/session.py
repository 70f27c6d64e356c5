"""One client: what is on its way to it, and whether it is still there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog

from pie_client.codec import NOTICE, encode
from pie_client.wire import Reply
from pie_daemon.listener.transport import Peer, Sent, Transport

_log = structlog.get_logger()


class Session:
    """Exists from hello until bye, silence, or a full outbox.

    Everything runs in the loop's thread. `on_blocked` is called when the peer's queue is full, so
    that somebody calls `flush` later; `on_lost` once, when the client cannot be reached.
    """

    def __init__(
        self,
        transport: Transport,
        route: bytes,
        peer: Peer,
        *,
        on_blocked: Callable[[Session], None],
        on_lost: Callable[[Session, str], None],
    ) -> None:
        self.peer = peer
        self.last_seen_s = 0.0
        self.open = True
        self.num_requests = 0
        self.request_bytes = 0
        self.chunk_bytes = 0
        self.outbox_bytes = 0
        self._transport = transport
        self._route = route
        self._on_blocked = on_blocked
        self._on_lost = on_lost
        self._outbox: deque[tuple[bytes, bytes]] = deque()

    @property
    def key(self) -> tuple[str, bytes]:
        return self._transport.endpoint, self._route

    @property
    def blocked(self) -> bool:
        """True while the client does not take what is meant for it."""
        return bool(self._outbox)

    def reply(self, frames: tuple[bytes, bytes], limit_bytes: int) -> None:
        """A client that asks and never reads is dropped before its answers fill the memory."""
        if self.outbox_bytes > limit_bytes:
            self._lose("it does not read its answers")
        self._post(frames)

    def notice(self, message: Reply) -> None:
        self._post(encode(message, NOTICE))

    def flush(self) -> None:
        """Sends what waits, as far as the client takes it."""
        while self._outbox and self._send(self._outbox[0]):
            frames = self._outbox.popleft()
            self.outbox_bytes -= len(frames[1])

    def close(self) -> None:
        """Nothing is sent after this."""
        self.open = False
        self._outbox.clear()
        self.outbox_bytes = 0

    def _post(self, frames: tuple[bytes, bytes]) -> None:
        if not self.open:
            return
        if self._outbox or not self._send(frames):
            if self.open:
                self._outbox.append(frames)
                self.outbox_bytes += len(frames[1])

    def _send(self, frames: tuple[bytes, bytes]) -> bool:
        if not self.open:
            return False
        sent = self._transport.send(self._route, frames)
        if sent is Sent.GONE:
            self._lose("its connection is gone")
        elif sent is Sent.FULL:
            self._on_blocked(self)
        return sent is Sent.OK

    def _lose(self, reason: str) -> None:
        if self.open:
            self.close()
            _log.info("client lost", client=self.peer.address, reason=reason)
            self._on_lost(self, reason)
