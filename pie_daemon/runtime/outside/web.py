"""HTTP for programs: granted hosts only, hop by hop, and bounded in every way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol

import httpcore
import httpx

from pie_daemon.errors import PieError
from pie_daemon.host.outside import WebRequest, WebResponse
from pie_daemon.runtime.outside.addresses import (
    AddressLimits,
    CheckedNetwork,
    Resolve,
    SystemResolver,
)
from pie_daemon.runtime.outside.loop import Job, Loop
from pie_daemon.runtime.outside.request import RequestLimits, build, check_granted, target_of

_MAX_REDIRECTS = 5
_MAX_RUNNING = 256
"""Exchanges of all programs at the same time; further ones wait for their turn."""
_KEEP_ALIVE_S = 15.0
_FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpx.TransportError,
    ssl.SSLError,
)


class WebLimits(AddressLimits, RequestLimits, Protocol):
    @property
    def http_exchanges(self) -> int: ...

    @property
    def http_response_bytes(self) -> int: ...

    @property
    def http_timeout_s(self) -> float: ...


class Web:
    """What the programs of a daemon share. `limits` is asked anew for every exchange."""

    def __init__(
        self, loop: Loop, limits: Callable[[], WebLimits], resolve: Resolve | None = None
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.turns = asyncio.Semaphore(_MAX_RUNNING)
        self._network = CheckedNetwork(limits, resolve or SystemResolver())
        self._tls: ssl.SSLContext | None = None

    def new_client(self) -> httpx.AsyncClient:
        """Its own connections and no cookies: nothing of one program reaches another."""
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=None,
            keepalive_expiry=_KEEP_ALIVE_S,
            network_backend=self._network,
        )
        return httpx.AsyncClient(
            transport=_Transport(pool),
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )


class ProgramWeb:
    """What one instance has of it; belongs to the instance's thread."""

    def __init__(self, web: Web, manifests: tuple[tuple[str, ...], ...]) -> None:
        self._web = web
        self._manifests = manifests
        self._num_open = 0
        self._was_used = False
        self._client: httpx.AsyncClient | None = None

    def fetch(self, asked: WebRequest, notify: Callable[[], None]) -> Job[WebResponse]:
        """
        Raises:
            PieError: whatever can be said without asking anybody; all else the job tells.
        """
        limits = self._web.limits()
        request = build(asked, limits)
        check_granted(target_of(request.url), limits.http_hosts, self._manifests)
        if self._num_open >= limits.http_exchanges:
            raise PieError(
                "exhausted",
                f"{self._num_open} exchanges are open (limits.http_exchanges="
                f"{limits.http_exchanges}); take what they bring and drop them",
            )
        timeout_s = min(asked.timeout_s or limits.http_timeout_s, limits.http_timeout_s)
        job = self._web.loop.submit(self._exchange(request, timeout_s), notify, self._forget_one)
        self._num_open += 1
        self._was_used = True
        return job

    def close(self) -> None:
        """The instance has ended, and its exchanges with it."""
        if self._was_used:
            self._web.loop.discard(self._hang_up())

    def _forget_one(self) -> None:
        self._num_open -= 1

    # On the loop's thread

    async def _hang_up(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _exchange(self, request: httpx.Request, timeout_s: float) -> WebResponse:
        target = target_of(request.url)
        try:
            async with asyncio.timeout(timeout_s), self._web.turns:
                return await self._follow(request)
        except TimeoutError:
            raise PieError("timeout", f"{target} has not answered within {timeout_s:g} s") from None
        except _FAILURES as error:
            reason = str(error) or type(error).__name__
            raise PieError("closed", f"the exchange with {target} failed: {reason}") from None

    async def _follow(self, request: httpx.Request) -> WebResponse:
        if self._client is None:
            self._client = self._web.new_client()
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._client.send(request, stream=True)
            try:
                if response.next_request is None:
                    return await self._read(response)
            finally:
                await response.aclose()
            self._check_hop(request, response.next_request)
            request = response.next_request
        raise PieError(
            "exhausted", f"more than {_MAX_REDIRECTS} redirects, the last to {request.url}"
        )

    def _check_hop(self, request: httpx.Request, onward: httpx.Request) -> None:
        try:
            target = target_of(onward.url)
            check_granted(target, self._web.limits().http_hosts, self._manifests)
        except PieError as error:
            message = f"{target_of(request.url)} redirects to {onward.url}: {error.message}"
            raise PieError("denied", message) from None
        if request.url.scheme == "https" and target.scheme == "http":
            message = f"{target_of(request.url)} redirects to {onward.url}, without encryption"
            raise PieError("denied", message)

    async def _read(self, response: httpx.Response) -> WebResponse:
        most = self._web.limits().http_response_bytes
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > most:
                raise PieError(
                    "exhausted",
                    f"the response of {target_of(response.request.url)} is over "
                    f"limits.http_response_bytes={most}; ask for a part of it",
                )
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in response.headers.raw
        ]
        return WebResponse(response.status_code, headers, bytes(body))


class _Transport(httpx.AsyncBaseTransport):
    """httpx over a pool with a network of its own, for which httpx has no setting."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._response.aclose()
