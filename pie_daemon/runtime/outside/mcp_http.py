"""An MCP server over streamable HTTP, with a bound on what it may send at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from pie_daemon.runtime.outside.process import MAX_MESSAGE_BYTES

_TIMEOUT = httpx2.Timeout(30.0, read=None)  # each call has its own limit


@asynccontextmanager
async def connect(url: str, headers: Mapping[str, str]) -> AsyncIterator[Any]:
    """A transport, as `mcp.Client` takes it. The environment's proxies are not used."""
    inner = httpx2.AsyncHTTPTransport()
    async with httpx2.AsyncClient(
        transport=_Bounded(inner), headers=dict(headers), timeout=_TIMEOUT, trust_env=False
    ) as client:
        yield streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES)


class _Bounded(httpx2.AsyncBaseTransport):
    """Ends a JSON answer that is too large; of a stream of events each is bounded elsewhere."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if "event-stream" not in response.headers.get("content-type", ""):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _BoundedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for piece in self._inner:
            num_bytes += len(piece)
            if num_bytes > MAX_MESSAGE_BYTES:
                raise httpx2.StreamError(f"an answer of more than {MAX_MESSAGE_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
