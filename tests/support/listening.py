"""A listener on real sockets over a fake runtime."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pie_daemon.listener.config import ListenerConfig
from pie_daemon.listener.seams import Services
from pie_daemon.listener.server import Server
from support.fake_runtime import FakeProgramStore, FakeSupervisor, Program, echo, fail, wait

TCP = "tcp://127.0.0.1:*"
MAX_PROGRAM_BYTES = 64 << 20


@dataclass
class Listening:
    server: Server
    supervisor: FakeSupervisor
    programs: FakeProgramStore
    directory: Path
    services: Services

    @property
    def ipc(self) -> str:
        return self.server.endpoints[0]

    @property
    def tcp(self) -> str:
        return self.server.endpoints[1]


@asynccontextmanager
async def listening(
    config: ListenerConfig | None = None, **more: Program
) -> AsyncIterator[Listening]:
    """A server on ipc and tcp; it and all programs have ended afterwards."""
    # A socket path has at most 107 bytes; pytest's own directories can be longer.
    directory = Path(tempfile.mkdtemp(prefix="pie-"))
    supervisor = FakeSupervisor({"echo": echo, "wait": wait, "fail": fail, "bug": wait, **more})
    programs = FakeProgramStore()
    services = Services(
        supervisor=supervisor,
        programs=programs,
        make_budgets=lambda budgets: budgets,
        max_program_bytes=lambda: MAX_PROGRAM_BYTES,
        detail=lambda: {"fake": True},
    )
    endpoints = (f"ipc://{directory}/pie.sock", TCP)
    config = msgspec.structs.replace(config or ListenerConfig(), endpoints=endpoints)
    server = Server(config, services, directory, directory / "uploads")
    try:
        await server.start()
        yield Listening(server, supervisor, programs, directory, services)
    finally:
        supervisor.close()
        await server.close()
        shutil.rmtree(directory)
