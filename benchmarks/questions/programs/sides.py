"""The two sides: programs behind a daemon, and clients of vLLM's server, near or far away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx

from benchmarks.peers.server import Server
from benchmarks.questions.programs import delay
from benchmarks.questions.programs.workload import Work, Workload
from pie_client import AsyncClient
from support.daemon import DaemonProcess

PROGRAM = "programs"


class Side(Protocol):
    async def run(self, workload: Workload, works: Sequence[Work]) -> list[int]:
        """All agents at once; how many tokens each had drawn."""
        ...


class Launches:
    """One launch and one answer for each agent."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def at(cls, daemon: DaemonProcess, delay_s: float) -> AsyncIterator[Launches]:
        socket = Path(daemon.endpoint.removeprefix("ipc://"))
        async with AsyncExitStack() as stack:
            path = await stack.enter_async_context(delay.to_path(socket, delay_s))
            client = await AsyncClient.connect(f"ipc://{path}")
            yield cls(await stack.enter_async_context(client))

    async def run(self, workload: Workload, works: Sequence[Work]) -> list[int]:
        return await asyncio.gather(*(self._one(workload.name, work) for work in works))

    async def _one(self, program: str, work: Work) -> int:
        process = await self._client.launch(PROGRAM, {"program": program, **work})
        return int((await process.result())["num_tokens"])


class Clients:
    """`Served` for agents that run here: their connections stay open."""

    def __init__(self, server: Server, http: httpx.AsyncClient, tokenizer: Path) -> None:
        from tokenizers import Tokenizer

        self._server = server
        self._http = http
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))

    @classmethod
    @asynccontextmanager
    async def at(cls, server: Server, model: Path, delay_s: float) -> AsyncIterator[Clients]:
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(delay.to_port(server.port, delay_s))
            http = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                timeout=120,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            )
            yield cls(server, await stack.enter_async_context(http), model)

    async def run(self, workload: Workload, works: Sequence[Work]) -> list[int]:
        with self._server.turn():
            return await asyncio.gather(*(workload.client(self, work) for work in works))

    async def complete(self, prompt: list[int], max_tokens: int, **more: Any) -> list[int]:
        asked = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        answer = await self._http.post("/v1/completions", json=asked | more)
        answer.raise_for_status()
        tokens: list[int] = answer.json()["choices"][0]["token_ids"]
        return tokens

    async def get(self, url: str) -> list[int]:
        answer = await self._http.get(url)
        answer.raise_for_status()
        tokens: list[int] = answer.json()
        return tokens

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
