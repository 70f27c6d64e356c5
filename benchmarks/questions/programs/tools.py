"""The tool that agents ask over HTTP; it takes its time, as tools do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_server
from threading import Thread

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.model import SMALL

LATENCY_S = 0.02
NUM_TOKENS = 32


async def look_up(request: Request) -> JSONResponse:
    """Tokens that depend on the question."""
    await asyncio.sleep(LATENCY_S)
    seed = 1 + int(request.query_params["after"])
    return JSONResponse([seed * 48271**place % SMALL.vocab for place in range(NUM_TOKENS)])


@contextmanager
def tool_server() -> Iterator[str]:
    """Its URL."""
    app = Starlette(routes=[Route("/", look_up)])
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    socket = create_server(("127.0.0.1", 0))
    thread = Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
