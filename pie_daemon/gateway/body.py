"""Reads the body of a request, no further and no longer than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive

from pie_daemon.gateway.errors import ApiError
from pie_daemon.gateway.following import ClientGone

_PATIENCE = 4
"""How many times the limit is read and dropped, so that a client still writing sees the answer."""


async def read_body(
    headers: Mapping[str, str], receive: Receive, max_bytes: int, timeout_s: float
) -> bytes:
    """
    Raises:
        ApiError: it is too large, too slow, or not declared as JSON.
        ClientGone: the connection ended before the body.
    """
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read(receive, max_bytes)
    except TimeoutError:
        message = f"the body did not arrive within {timeout_s:g} s (gateway.read_timeout_s)"
        raise ApiError(408, message) from None
    # After the body, so that the connection can go on. A page in a browser cannot send JSON to
    # another site without asking first, and nobody here says yes.
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send the body as `Content-Type: application/json`")
    return body


async def _read(receive: Receive, max_bytes: int) -> bytes:
    body = bytearray()
    size = 0
    while size <= _PATIENCE * max_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        size += len(message.get("body", b""))
        if size <= max_bytes:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    if size > max_bytes:
        raise ApiError(
            413, f"the body is larger than gateway.max_body_bytes={max_bytes}", code="too_large"
        )
    return bytes(body)
