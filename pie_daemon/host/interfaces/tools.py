"""WIT interface `tools`: tools of MCP servers that a program has been granted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from pie_daemon.host.context import HostContext
from pie_daemon.host.interfaces.jobs import HeldJob, get, subscribe


class Call(HeldJob[str]):
    """A tool at work and, later, its result."""


def servers(host: HostContext) -> list[str]:
    return host.tools.servers()


def list_tools(host: HostContext, server: str) -> str:
    with closing(HeldJob(host.tools.list_tools(server, host.mailbox.wake))) as listing:
        return get(host, listing)


def call_tool(host: HostContext, server: str, name: str, arguments: str) -> Call:
    return Call(host.tools.call(server, name, arguments, host.mailbox.wake))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "servers": servers,
    "list-tools": list_tools,
    "[method]call.subscribe": subscribe,
    "[method]call.get": get,
    "call-tool": call_tool,
}
