"""One HTTP connection: uvicorn's, with a limit on how many there are and on slow requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from pie_daemon.gateway.config import GatewayConfig
from pie_daemon.gateway.errors import ApiError

_HARD_LIMIT = 2
"""How many times the limit may be open while the surplus ones are told so."""


class Connection(H11Protocol):
    def __init__(
        self,
        limits: GatewayConfig,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        # Every request of the connection gets a copy as its state.
        self.app_state = {"abort": self._abort, "surplus": False}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self._limits.max_connections
        self.app_state["surplus"] = len(self.connections) > most
        if len(self.connections) > _HARD_LIMIT * most:
            transport.abort()
        else:
            self._mind_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_the_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._mind_the_head()

    def _mind_the_head(self) -> None:
        """A request that has begun, or a connection that says nothing, has limited time."""
        if self.conn.their_state is not h11.IDLE:
            self._forget_the_head()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self._limits.read_timeout_s, self._abort)

    def _forget_the_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._forget_the_head()  # the keep-alive time runs instead

    def _abort(self) -> None:
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        error = ApiError(400, msg, code="not_http")
        body = msgspec.json.encode(error.body())
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def connections(limits: GatewayConfig) -> Callable[..., Connection]:
    """What uvicorn calls for each new connection."""

    def make(**given: Any) -> Connection:
        return Connection(limits, **given)

    return make
