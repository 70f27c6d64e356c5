"""A real MCP server for tests: `python mcp_server.py` over stdio, or `... PORT` over HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

PATH = Path(__file__)
server = MCPServer("test", log_level="CRITICAL")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool(structured_output=False)
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f'{{"city": "{city}", "temperature": {10 + len(city)}, "sky": "sunny"}}'


@server.tool()
def fail(reason: str) -> str:
    """Fails."""
    raise ToolError(reason)


@server.tool(structured_output=False)
def big(size: int) -> str:
    """Says a lot."""
    return "x" * size


@server.tool()
def crash() -> str:
    """Ends the server in the middle of the call."""
    sys.stderr.write("cannot go on\n")
    sys.stderr.flush()
    os._exit(7)


@server.tool()
async def hang() -> str:
    """Never answers, and lets others go on."""
    await asyncio.Event().wait()
    return "never"


@server.tool()
def hang_hard() -> str:
    """Never answers, and nobody else either."""
    time.sleep(3600)
    return "never"


@server.tool()
def who() -> dict[str, str | int]:
    """Tells which process this is, and what it was given."""
    return {"pid": os.getpid(), "given": os.environ.get("GIVEN", ""), "cwd": os.getcwd()}


@contextmanager
def over_http(port: int | None = None) -> Iterator[str]:
    """Its url."""
    port = port or free_port()
    process = subprocess.Popen([sys.executable, str(PATH), str(port)])
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the MCP server does not start")


def _stop_without_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def main(arguments: list[str]) -> None:
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    if arguments:
        server.run("streamable-http", port=int(arguments[0]))
    else:
        server.run("stdio")


if __name__ == "__main__":
    main(sys.argv[1:])
