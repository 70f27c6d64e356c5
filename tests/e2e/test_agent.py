"""The shipped agent over the embedded model, with a tool of a real MCP server."""

from __future__ import annotations

import sys

import pytest

from pie_client import Client
from pie_client.events import Message
from support import mcp_server
from support.daemon import DaemonProcess

pytestmark = pytest.mark.slow


def test_the_agent_looks_up_the_weather() -> None:
    """The model asks, the tool answers, the model reads it out; the client sees each step."""
    daemon = DaemonProcess(
        f"mcp.servers.test.command={sys.executable}",
        f"mcp.servers.test.args=[{mcp_server.PATH}]",
        "limits.tools=[test/get_weather]",
        "backend.dtype=float32",
    )
    try:
        daemon.start().install("agent")
        with Client.connect(daemon.endpoint) as client:
            question = {"role": "user", "content": "What is the weather in Paris?"}
            process = client.launch("agent", {"messages": [question], "temperature": 0})
            told = [one.json() for one in process.events() if isinstance(one, Message)]
            result = process.result()
        assert 0 == daemon.stop()
    finally:
        daemon.remove()

    assert ["tool_call", "tool_result", "delta", "usage"] == [one["type"] for one in told]
    assert {"city": "Paris"} == told[0]["arguments"]
    assert ["get_weather"] == [call["name"] for call in result["tool_calls"]]
    assert "15 degrees" in result["text"]
