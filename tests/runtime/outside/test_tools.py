"""Tools of real MCP servers, over stdio and over HTTP: use, limits, crashes and hangs."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pie_daemon.errors import PieError
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.outside.config import McpConfig, McpServer
from pie_daemon.runtime.outside.loop import Job, Loop
from pie_daemon.runtime.outside.tools import ProgramTools, Tools
from support import mcp_server
from support.waiting import until

pytestmark = pytest.mark.slow
CHILD = McpServer(command=sys.executable, args=(str(mcp_server.PATH),))
ALL = ("*",)


class Setup:
    def __init__(self) -> None:
        self.config = McpConfig(servers={"calc": CHILD})
        self.limits = LimitsConfig(tools=ALL)
        self.loop = Loop()
        self.tools = Tools(self.loop, lambda: self.config, lambda: self.limits)
        self.program = ProgramTools(self.tools, (ALL,))

    def declare(self, **servers: McpServer) -> None:
        self.config = msgspec.structs.replace(self.config, servers=servers)

    def set(self, **values: Any) -> None:
        self.config = msgspec.structs.replace(self.config, **values)

    def limit(self, **values: Any) -> None:
        self.limits = msgspec.structs.replace(self.limits, **values)

    def start(self, name: str, arguments: str = "{}", server: str = "calc") -> Job[str]:
        self.woken = threading.Event()
        return self.program.call(server, name, arguments, self.woken.set)

    def call(self, name: str, server: str = "calc", **arguments: Any) -> dict[str, Any]:
        job = self.start(name, json.dumps(arguments), server)
        return dict(json.loads(self.finished(job)))

    def finished(self, job: Job[str]) -> str:
        try:
            until(self.woken.is_set)
            return job.result()
        finally:
            job.close()

    def listed(self, server: str = "calc") -> list[str]:
        self.woken = threading.Event()
        job = self.program.list_tools(server, self.woken.set)
        return [tool["name"] for tool in json.loads(self.finished(job))["tools"]]

    def refusal(self, name: str, server: str = "calc", **arguments: Any) -> tuple[str, str]:
        with pytest.raises(PieError) as caught:
            self.call(name, server, **arguments)
        return caught.value.code, caught.value.message

    def pid(self, server: str = "calc") -> int:
        return int(self.call("who", server)["structuredContent"]["pid"])


@pytest.fixture
def tools() -> Iterator[Setup]:
    setup = Setup()
    yield setup
    setup.tools.close()
    setup.loop.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with mcp_server.over_http() as url:
        yield url


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_nothing_starts_before_it_is_used(tools: Setup) -> None:
    """Asking which servers there are is no use of them."""
    tools.declare(calc=CHILD, other=McpServer(command="/no/such/command"))
    assert ["calc", "other"] == tools.program.servers()
    assert tools.loop._loop is None


@pytest.mark.parametrize("kind", ["stdio", "http"])
def test_a_tool_answers(tools: Setup, url: str, kind: str) -> None:
    """Results and the tool's own errors are MCP JSON; the server is started once and kept."""
    if kind == "http":
        tools.declare(calc=McpServer(url=url))
    result = tools.call("add", a=2, b=3)
    assert [{"type": "text", "text": "5"}] == result["content"]
    assert ({"result": 5}, False) == (result["structuredContent"], result["isError"])
    failed = tools.call("fail", reason="out of paper")
    assert failed["isError"]
    assert "out of paper" in failed["content"][0]["text"]
    assert {"add", "fail", "who"} <= set(tools.listed())
    assert tools.pid() == tools.pid()


@pytest.mark.parametrize("kind", ["stdio", "http"])
def test_limits_hold(tools: Setup, url: str, kind: str) -> None:
    """Size, time and number; the server stays for others."""
    if kind == "http":
        tools.declare(calc=McpServer(url=url))
    tools.limit(tool_bytes=2000, tool_calls=1)
    assert ("exhausted", True) == _about(tools.refusal("big", size=3000), "limits.tool_bytes=2000")
    assert ("exhausted", True) == _about(
        tools.refusal("add", a="x" * 3000), "arguments of 3009 bytes"
    )
    tools.set(call_s=0.3)
    assert ("timeout", True) == _about(tools.refusal("hang"), "within 0.3 s (mcp.call_s)")
    tools.set(call_s=60.0)
    waiting = tools.start("hang")
    assert ("exhausted", True) == _about(tools.refusal("add", a=1, b=1), "limits.tool_calls=1")
    waiting.close()
    assert 2 == tools.call("add", a=1, b=1)["structuredContent"]["result"]


def _about(refusal: tuple[str, str], part: str) -> tuple[str, bool]:
    return refusal[0], part in refusal[1] or pytest.fail(refusal[1])


@pytest.mark.parametrize(
    ("manifests", "operator", "code", "part"),
    [
        ([()], ALL, "denied", "the manifest does not ask for calc/add"),
        ([("calc/who",)], ALL, "denied", "the manifest does not ask for calc/add"),
        ([ALL, ()], ALL, "denied", "programs which launch this one"),
        ([ALL], (), "denied", "the operator does not allow calc/add"),
        ([ALL], ("calc/who", "other"), "denied", "it is not in limits.tools"),
    ],
)
def test_nothing_is_granted_unless_everybody_grants_it(
    tools: Setup, manifests: list[tuple[str, ...]], operator: tuple[str, ...], code: str, part: str
) -> None:
    """The manifest, those above it, and the operator; each refusal says whose it was."""
    tools.limit(tools=operator)
    tools.program = ProgramTools(tools.tools, tuple(manifests))
    assert (code, True) == _about(tools.refusal("add", a=1, b=1), part)
    assert tools.loop._loop is None


def test_only_granted_servers_and_tools_are_listed(tools: Setup) -> None:
    """What cannot be used is not shown."""
    tools.declare(calc=CHILD, other=CHILD, third=CHILD)
    tools.limit(tools=("calc/add", "calc/who", "third/add"))
    tools.program = ProgramTools(tools.tools, (("calc", "other", "third/who"),))
    assert ["calc"] == tools.program.servers()
    assert {"add", "who"} == set(tools.listed())


def test_what_does_not_exist_is_refused_by_name(tools: Setup) -> None:
    """Server, tool, arguments."""
    code, message = tools.refusal("add", "clac", a=1)
    assert ("not-found", True) == (code, "there are: calc" in message)
    with pytest.raises(PieError, match="are a JSON object"):
        tools.start("add", "[1, 2]")
    with pytest.raises(PieError, match="are a JSON object"):
        tools.start("add", "{")
    for missing in (tools.call("no_such_tool"), tools.call("add", a="one", b=2)):
        assert missing["isError"]


def test_a_command_that_does_not_exist_is_explained(tools: Setup, tmp_path: Path) -> None:
    """With the key to set; and later calls are refused at once for a while."""
    tools.declare(calc=McpServer(command="no-such-command"))
    for _ in range(2):
        code, message = tools.refusal("add")
        assert "not-found" == code
        assert "install 'no-such-command'" in message
        assert "mcp.servers.calc.command" in message
    assert "it is tried again in" in tools.refusal("add")[1]
    tools.declare(calc=McpServer(command=sys.executable, cwd=str(tmp_path / "nowhere")))
    assert "not-found" == tools.refusal("add")[0]


def test_a_server_that_ends_at_once_is_explained(tools: Setup) -> None:
    """With its exit code and its last words."""
    code = "import sys; sys.exit('no licence')"
    tools.declare(calc=McpServer(command=sys.executable, args=("-c", code)))
    found = tools.refusal("add")
    assert ("closed", True) == _about(found, "ended with exit code 1; it said: no licence")


def test_a_server_that_never_speaks_is_given_up(tools: Setup) -> None:
    """After its time to start."""
    tools.declare(calc=McpServer(command="sleep", args=("3600",)))
    tools.set(start_s=0.2)
    assert ("closed", True) == _about(tools.refusal("add"), "mcp.start_s")


def test_a_server_that_talks_nonsense_is_no_server(tools: Setup) -> None:
    """Lines that are no messages are passed over until its time is up."""
    code = "print('hello'); print('{}', flush=True); import time; time.sleep(3600)"
    tools.declare(calc=McpServer(command=sys.executable, args=("-c", code)))
    tools.set(start_s=1.0)
    assert "closed" == tools.refusal("add")[0]


def test_a_crash_ends_its_calls_and_the_next_call_starts_anew(tools: Setup) -> None:
    """Everybody who waits is told why, at once."""
    pid = tools.pid()
    other = tools.start("hang")
    woken = self_woken = tools.woken
    code, message = tools.refusal("crash")
    assert "closed" == code
    assert "ended with exit code 7; it said: cannot go on" in message
    until(woken.is_set)
    with pytest.raises(PieError, match="exit code 7"):
        other.result()
    other.close()
    assert self_woken.is_set()
    assert pid != tools.pid()


def test_crashes_in_a_row_make_it_pause(tools: Setup) -> None:
    """The first start comes at once, the next one after a second; success makes it forget."""
    for _ in range(2):
        assert "closed" == tools.refusal("crash")[0]
    code, message = tools.refusal("add", a=1, b=2)
    assert "closed" == code
    assert "exit code 7" in message
    assert "it is tried again in" in message


def test_a_server_that_hangs_for_everybody_is_started_again(tools: Setup) -> None:
    """After three calls that ran out of time."""
    pid = tools.pid()
    tools.set(call_s=0.2)
    assert ["timeout"] * 3 == [tools.refusal("hang_hard")[0] for _ in range(3)]
    tools.set(call_s=60.0)
    assert pid != tools.pid()
    until(lambda: gone(pid))


def test_a_message_without_end_ends_the_server(
    tools: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fill the memory."""
    from pie_daemon.runtime.outside import process

    monkeypatch.setattr(process, "MAX_MESSAGE_BYTES", 1 << 17)
    assert ("closed", True) == _about(
        tools.refusal("big", size=1 << 18), "sent a message of more than 131072 bytes"
    )


def test_an_http_answer_without_end_ends(
    tools: Setup, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like one over stdio."""
    from pie_daemon.runtime.outside import mcp_http

    monkeypatch.setattr(mcp_http, "MAX_MESSAGE_BYTES", 1 << 17)
    tools.declare(calc=McpServer(url=url))
    assert tools.refusal("big", size=1 << 18)[0] in ("closed", "internal")
    assert 3 == tools.call("add", a=1, b=2)["structuredContent"]["result"]


def test_a_server_over_http_that_is_away_and_back(tools: Setup) -> None:
    """The line is made anew; while it is away the reason is told."""
    port = mcp_server.free_port()
    tools.declare(calc=McpServer(url=f"http://127.0.0.1:{port}/mcp"))
    assert "closed" == tools.refusal("add")[0]
    for _ in range(2):
        with mcp_server.over_http(port):
            until(lambda: _answers(tools))
    assert "closed" == tools.refusal("add", a=1, b=1)[0]


def _answers(tools: Setup) -> bool:
    try:
        return bool(tools.call("add", a=1, b=1)["structuredContent"]["result"] == 2)
    except PieError:
        return False


def test_a_server_gets_what_is_declared_and_nothing_else(
    tools: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a new declaration is a new server."""
    monkeypatch.setenv("GIVEN", "by the daemon")
    first = tools.call("who")["structuredContent"]
    assert "" == first["given"]
    changed = msgspec.structs.replace(CHILD, env={"GIVEN": "by hand"}, cwd=str(tmp_path))
    tools.declare(calc=changed)
    second = tools.call("who")["structuredContent"]
    assert ("by hand", str(tmp_path)) == (second["given"], second["cwd"])
    until(lambda: gone(first["pid"]))


def test_servers_end_with_the_daemon(tools: Setup) -> None:
    """Also one that does not listen any more; nobody waits for ever."""
    pid = tools.pid()
    job = tools.start("hang_hard")
    tools.tools.close()
    assert gone(pid)
    until(tools.woken.is_set)
    with pytest.raises(PieError, match="was closed"):
        job.result()
    job.close()
