"""The endpoint's life: bound, served inside the daemon's own loop, drained, closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog
import uvicorn

from pie_daemon.errors import PieError
from pie_daemon.gateway.access import Access
from pie_daemon.gateway.app import Front, make_app
from pie_daemon.gateway.catalogue import Catalogue
from pie_daemon.gateway.config import GatewayConfig, exposure
from pie_daemon.gateway.connection import connections
from pie_daemon.gateway.following import Launcher
from pie_daemon.gateway.shipped import Shipped
from pie_daemon.host.context import Models
from pie_daemon.runtime.programs import ProgramStore
from pie_daemon.tasks import Tasks

_BACKLOG = 1024
_TICK_S = 1.0
"""uvicorn renews the date of its answers so often."""
_LAST_ANSWERS_S = 5.0
_log = structlog.get_logger()


@dataclass(frozen=True)
class Places:
    folder: Path
    """The inferlet folder."""
    cache: Path
    """For programs that are built here because the folder lacks them."""


class Gateway:
    """`start` once; `drain`, and later `close`, also after a failed start."""

    def __init__(
        self,
        config: GatewayConfig,
        launcher: Launcher,
        programs: ProgramStore,
        models: Models,
        places: Places,
    ) -> None:
        self._config = config
        catalogue = Catalogue(models, programs, places.folder)
        self._front = Front(config, Access(config), catalogue, launcher)
        self._server: _Server | None = None
        self._shipped = Shipped(programs, places.folder, places.cache)
        self._tasks = Tasks("gateway")
        self.url = ""

    async def start(self) -> None:
        """Bound and serving when it returns.

        Raises:
            PieError: invalid-argument for what must not be served, busy when the port is taken.
        """
        if (reason := exposure(self._config)) is not None:
            raise PieError("invalid-argument", f"gateway.host: {reason}")
        bound = _bind(self._config)
        host, port = bound.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._server = _Server(_uvicorn_config(self._config, make_app(self._front)))
        self._tasks.spawn(self._server.serve(sockets=[bound]), "serve")
        await self._server.serving.wait()
        self._tasks.spawn(asyncio.to_thread(self._shipped.provide), "provide programs")
        _log.info("gateway_ready", url=self.url)

    def drain(self) -> None:
        """Takes no more connections and requests; those that run go on."""
        self._front.draining = True
        self._shipped.stop()
        if self._server is not None:
            self._server.stop()

    async def close(self) -> None:
        """The programs have ended: their last words go out, then the connections are closed."""
        self.drain()
        if self._server is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_ANSWERS_S):
                    await self._server.stopped.wait()
            self._server.abort()
        await self._tasks.close()

    def detail(self) -> dict[str, Any]:
        """For the status."""
        return {"url": self.url, "requests": self._front.num_requests}


class _Server(uvicorn.Server):
    """Without signals, which are the daemon's, and without looking every 0.1 s."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()
        self.stopped = asyncio.Event()
        self._asked = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._asked.set()

    def abort(self) -> None:
        self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.stopped.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._asked.wait()


def _bind(config: GatewayConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    address = (config.host.strip("[]"), config.port)
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise PieError(
            "busy",
            f"cannot listen on {config.host} port {config.port}: {error.strerror or error}; "
            "set gateway.host or gateway.port, or end what uses it",
        ) from None


def _uvicorn_config(config: GatewayConfig, app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast(Any, connections(config)),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=cast(int, config.keep_alive_s),
    )
