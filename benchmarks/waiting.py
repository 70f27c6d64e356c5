"""Programs that are entered and then wait, launched by clients of a real daemon."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import NamedTuple

from benchmarks import javascript
from pie_client import AsyncClient
from pie_client.events import Message
from pie_client.process import AsyncProcess
from support.daemon import DaemonProcess
from support.programs import MEASURED

PYTHON, JAVASCRIPT = "waits", "waits-js"
LABELS = {PYTHON: "Python", JAVASCRIPT: "JavaScript (QuickJS)"}
# A client may leave 256 requests unanswered.
_NUM_CLIENTS = 4


class Entered(NamedTuple):
    """Milliseconds since the first launch was asked for."""

    entered_ms: float
    """When `run` was entered, by the program's own clock."""
    seen_ms: float
    """When the client had the program's word for it."""


class Waiting:
    """Clients of a `waiting_daemon`. Use `async with`; what they launched ends with it."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._stack = AsyncExitStack()
        self._clients: list[AsyncClient] = []
        self._processes: list[AsyncProcess] = []

    async def __aenter__(self) -> Waiting:
        for _ in range(_NUM_CLIENTS):
            client = await AsyncClient.connect(self._endpoint)
            self._clients.append(await self._stack.enter_async_context(client))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end_all()
        await self._stack.aclose()

    async def launch(self, program: str, num_programs: int) -> list[Entered]:
        """All at once; back when every one of them was entered and waits."""
        begun, begun_ms = time.perf_counter(), time.time() * 1000
        entering = [
            self._enter(self._clients[number % _NUM_CLIENTS], program, begun, begun_ms)
            for number in range(num_programs)
        ]
        return list(await asyncio.gather(*entering))

    async def _enter(
        self, client: AsyncClient, program: str, begun: float, begun_ms: float
    ) -> Entered:
        process = await client.launch(program)
        self._processes.append(process)
        async for event in process.events():
            assert isinstance(event, Message), event
            entered_ms = max(0.0, float(event.text) - begun_ms)
            return Entered(entered_ms, (time.perf_counter() - begun) * 1000)
        raise AssertionError(f"{program} ended before it was entered")

    async def end_all(self) -> None:
        """Lets every program return, and waits until it has."""
        processes, self._processes = self._processes, []
        await asyncio.gather(*(_end(process) for process in processes))


async def _end(process: AsyncProcess) -> None:
    await process.close_input()
    await process.result()


def waiting_daemon() -> DaemonProcess:
    daemon = DaemonProcess().start()
    daemon.put(javascript.built(MEASURED / JAVASCRIPT), JAVASCRIPT)
    daemon.install(PYTHON)
    daemon.wait_for(JAVASCRIPT)
    return daemon
