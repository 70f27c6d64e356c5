"""The same work as inferlets: `text-completion` programs of a real daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import Load, Timing
from benchmarks.model import as_text
from pie_client import AsyncClient, wire
from pie_client.events import Message
from support.daemon import DaemonProcess

PROGRAM = "text-completion"


class Programs:
    """A daemon and a client. A run sends each prompt to a program of its own, when it comes."""

    def __init__(
        self, directory: Path, kv_pages: int, *others: str, overrides: Sequence[str] = ()
    ) -> None:
        """`others`: programs to install beside `text-completion`, for `ask`."""
        settings = (f"model.path={directory}", f"backend.kv_pages={kv_pages}", *overrides)
        self._daemon = DaemonProcess(*settings)
        self._daemon.start()
        self._daemon.install(PROGRAM, *others)

    def run(self, load: Load) -> Timing:
        """Each program answers once, at its end."""
        return asyncio.run(self._run(load, stream=False))

    def run_streamed(self, load: Load) -> Timing:
        """Each program sends every token to the client as soon as it is drawn."""
        return asyncio.run(self._run(load, stream=True))

    async def _run(self, load: Load, stream: bool) -> Timing:
        inputs = [_input(prompt, load.new_tokens, stream) for prompt in load.prompts]
        arrivals = load.arrivals_s or [0.0] * len(inputs)
        async with await AsyncClient.connect(self._daemon.endpoint) as client:
            begun = time.perf_counter()
            answers = await asyncio.gather(
                *(
                    _follow(client, one, stream, begun, at_s)
                    for one, at_s in zip(inputs, arrivals, strict=True)
                )
            )
            seconds = time.perf_counter() - begun
        num_tokens, first_s, last_s = (list(part) for part in zip(*answers, strict=True))
        return Timing(seconds, num_tokens, first_s, last_s)

    def ask(self, program: str, **input: Any) -> Any:
        """The result of one run of another program."""
        with self._daemon.connect() as client:
            return client.launch(program, input).result()

    def status(self) -> wire.Status:
        with self._daemon.connect() as client:
            return client.status()

    def close(self) -> None:
        self._daemon.stop()
        self._daemon.remove()


async def _follow(
    client: AsyncClient, input: dict[str, Any], stream: bool, begun: float, at_s: float
) -> tuple[int, float, float]:
    """(tokens, when the first came, when the last came)."""
    await asyncio.sleep(begun + at_s - time.perf_counter())
    process = await client.launch(PROGRAM, input)
    first_s = 0.0
    if stream:
        async for event in process.events():
            if isinstance(event, Message) and not first_s:
                first_s = time.perf_counter() - begun
    result = await process.result()
    last_s = time.perf_counter() - begun
    return len(result["tokens"]), first_s or last_s, last_s


def _input(prompt: list[int], new_tokens: int, stream: bool) -> dict[str, Any]:
    return {
        "prompt": as_text(prompt),
        "max_tokens": new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": stream,
    }
