"""Programs that decode in different ways, timed without their launch and their prompt."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import javascript
from benchmarks.load import Load
from benchmarks.model import as_text
from pie_client import AsyncClient, AsyncProcess
from pie_client.events import Event, Message
from support import programs
from support.daemon import DaemonProcess, scheduler_of

PYTHON, JAVASCRIPT = "decode-loop", "decode-loop-js"
STREAMS = ("stream", "relay")
"""Ways whose tokens go to the client."""


class DecodeLoops:
    """A daemon, and a client that launches the programs, lets them all compute their prompts, and
    then has them decode at the same time."""

    def __init__(self, directory: Path, kv_pages: int) -> None:
        self._model = directory.name
        self._daemon = DaemonProcess(f"model.path={directory}", f"backend.kv_pages={kv_pages}")
        self._daemon.start()
        self._daemon.install(PYTHON)
        self.languages = {"Python": PYTHON}
        self.no_javascript = ""
        """Why there are no programs in JavaScript."""
        try:
            component = javascript.built(programs.MEASURED / JAVASCRIPT)
        except javascript.NoTool as reason:
            self.no_javascript = str(reason)
        else:
            self._daemon.put(component, JAVASCRIPT)
            self._daemon.wait_for(JAVASCRIPT)
            self.languages["JavaScript"] = JAVASCRIPT

    @property
    def pid(self) -> int:
        return self._daemon.pid

    def decode_s(self, program: str, way: str, load: Load) -> float:
        """Seconds per token of any of them; those of a stream are seen from the client."""
        return asyncio.run(self._decode_s(program, way, load))

    def batches(self) -> tuple[int, int]:
        """How many the scheduler has made, and the rows in all of them."""
        with self._daemon.connect() as client:
            numbers = scheduler_of(client, self._model)
            return int(str(numbers["steps"])), int(str(numbers["rows"]))

    async def _decode_s(self, program: str, way: str, load: Load) -> float:
        inputs = [
            {"way": way, "prompt": as_text(prompt), "new_tokens": load.new_tokens}
            for prompt in load.prompts
        ]
        async with await AsyncClient.connect(self._daemon.endpoint) as client:
            processes = await asyncio.gather(*(client.launch(program, one) for one in inputs))
            loops = [_Loop(process) for process in processes]
            await asyncio.gather(*(loop.prepare() for loop in loops))
            await asyncio.gather(*(process.send("go") for process in processes))
            follow = _Loop.streamed_s if way in STREAMS else _Loop.said_s
            waits = [follow(loop, load.new_tokens) for loop in loops]
            # All of them take part in every step.
            return mean(await asyncio.gather(*waits)) / len(waits)

    def close(self) -> None:
        self._daemon.stop()
        self._daemon.remove()


class _Loop:
    """One program, from its client's side."""

    def __init__(self, process: AsyncProcess) -> None:
        self._process = process
        self._events = process.events()

    async def prepare(self) -> None:
        """Returns once its prompt is computed."""
        await self._message()

    async def said_s(self, new_tokens: int) -> float:
        """Seconds per token by the program's own clock."""
        said = await self._result()
        assert new_tokens == len(said["tokens"])
        return float(said["decode_s"]) / new_tokens

    async def streamed_s(self, new_tokens: int) -> float:
        """Seconds per token from the first to the last that has arrived."""
        await self._message()
        begun = last = time.perf_counter()
        # A message has two tokens when the program has come too late for the first of them.
        async for event in self._events:
            if isinstance(event, Message):
                last = time.perf_counter()
        assert new_tokens == len((await self._process.result())["tokens"])
        return (last - begun) / (new_tokens - 1)

    async def _message(self) -> Event:
        event = await anext(self._events)
        assert isinstance(event, Message), event
        return event

    async def _result(self) -> dict[str, Any]:
        async for _ in self._events:
            pass
        result: dict[str, Any] = await self._process.result()
        return result
