"""Real programs that go outside: over the SDK, through the sandbox, to real servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.outside.config import McpConfig, McpServer
from pie_daemon.runtime.programs import SYSTEM
from support import mcp_server
from support.programs import built
from support.rig import Rig, saw
from support.waiting import until
from support.web_server import WebServer, web_server

pytestmark = pytest.mark.slow
ALL_IS_WELL = {
    "http": {
        "hello": True,
        "posted": True,
        "both": 2,
        "status": 404,
        "slow": "timeout",
        "denied": "denied",
        "refused": "invalid-argument",
        "unfinished": True,
    },
    "tools": {
        "servers": ["test"],
        "listed": True,
        "sum": 5,
        "both": 2,
        "failed": True,
        "asked": True,
        "denied": "denied",
        "unfinished": True,
    },
}


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as web:
        yield web


@pytest.fixture
def rig(tmp_path: Path, web: WebServer) -> Iterator[Rig]:
    """With a web server and an MCP server, which the operator allows."""
    server = McpServer(command=sys.executable, args=(str(mcp_server.PATH),))
    rig = Rig(tmp_path, mcp=McpConfig(servers={"test": server}))
    rig.limits = LimitsConfig(http_hosts=(f"127.0.0.1:{web.port}",), tools=("test",))
    rig.install("guest-outside")
    yield rig
    rig.close()


def num_calls(rig: Rig) -> int:
    """Calls that the MCP server works on."""
    connection = rig.tools._links["test"]._connection if rig.tools._links else None
    return len(connection._scopes) if connection else 0


def base(web: WebServer) -> str:
    return web.url("")


def test_every_function_reaches_the_world(rig: Rig, web: WebServer) -> None:
    """One program calls them all; its docstring says what has to come back."""
    assert ALL_IS_WELL == rig.run("guest-outside", web=base(web))


@pytest.mark.parametrize("end", ["trap", "cancel"])
def test_the_end_of_a_program_ends_what_it_began(rig: Rig, web: WebServer, end: str) -> None:
    """By whatever road it ends; the MCP server stays."""
    instance = rig.launch("guest-outside", leave=True, web=base(web))
    until(saw(instance, "leaving"))
    until(lambda: any(one.path == "/hang" for one in web.asked))
    until(lambda: num_calls(rig) == 1)
    if end == "trap":
        instance.close_input()
    else:
        instance.cancel("enough")
    rig.outcome(instance)
    until(web.hung_up.is_set)
    until(lambda: num_calls(rig) == 0)


def test_a_child_gets_no_more_than_its_parent(rig: Rig, web: WebServer) -> None:
    """Whatever its own manifest asks for."""
    poor = b'[inferlet]\nname = "poor"\nversion = "1.0.0"\n[grants]\ntools = ["test/add"]\n'
    rig.store.install(built("guest-outside"), SYSTEM, "poor", poor)
    well = rig.run("guest-outside", child={"web": base(web)})
    code, message = rig.run("poor", child={"web": base(web)})

    assert ALL_IS_WELL == well
    assert "denied" == code
    assert f"the manifest does not ask for 127.0.0.1:{web.port}" in message
    assert "programs which launch this one" in message


def test_the_shipped_agent_uses_granted_tools(rig: Rig) -> None:
    """As far as a backend without a model lets it: it is offered what it is granted."""
    rig.limits = LimitsConfig(tools=("test/get_weather",))
    rig.install("agent")
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = rig.run("agent", messages=messages, max_tokens=4, temperature=0, ignore_eos=True)

    assert ([], "length") == (answer["tool_calls"], answer["finish_reason"])
    outcome = rig.outcome(rig.launch("agent", messages=messages, servers=["other"]))
    assert ("error", "not-found") == (outcome.status, outcome.code)


def test_the_errands_example_asks_everybody_at_once(rig: Rig, web: WebServer) -> None:
    """Refusals and failures stand beside the answers."""
    rig.install("errands")
    urls = [web.url("/status/201"), web.url("/size/1000"), web.url("/nonsense")]
    found = rig.run("errands", urls=urls)

    assert [{"status": 201, "size": 8}, {"status": 200, "size": 1000}] == [
        found[url] for url in urls[:2]
    ]
    assert "failed" in found[urls[2]]["error"]
