"""The HTTP endpoint in the test's own loop, and what a client needs to look closely."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pie_daemon.gateway.config import GatewayConfig
from pie_daemon.gateway.server import Gateway, Places
from support import waiting
from support.rig import Rig


@dataclass
class Endpoint:
    gateway: Gateway
    client: httpx.AsyncClient
    port: int

    async def chat(self, order: Any, **fields: Any) -> httpx.Response:
        """`order` is what the program `actor` shall do."""
        return await self.client.post("/v1/chat/completions", json=asked(order, **fields))

    async def lines(self, order: Any, **fields: Any) -> list[str]:
        """Of a whole stream, without the empty ones."""
        response = await self.chat(order, stream=True, **fields)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line for line in response.text.split("\n") if line]

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()


def asked(order: Any, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": json.dumps(order)}
    return {"model": "actor", "messages": [message], **fields}


def http(body: Any, path: str = "/v1/chat/completions") -> bytes:
    """A request as it travels."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


@asynccontextmanager
async def endpoint(rig: Rig, root: Path, **settings: Any) -> AsyncIterator[Endpoint]:
    config = GatewayConfig(enabled=True, port=0, **settings)
    places = Places(root / "inferlets", root / "shipped")
    gateway = Gateway(config, rig.supervisor, rig.store, rig.models, places)
    try:
        await gateway.start()
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            yield Endpoint(gateway, client, int(gateway.url.rpartition(":")[2]))
    finally:
        await gateway.close()


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Waits while the loop goes on; fails when it does not hold in time."""
    await asyncio.to_thread(waiting.until, condition, timeout_s)
