"""WIT interface `tools`: tools of MCP servers that a program has been granted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.context import HostContext
from pie_daemon.host.outside import Job
from pie_daemon.host.waitable import Waitable


class Call:
    """A tool at work and, later, its result; dropping it cancels it."""

    def __init__(self, job: Job[str]) -> None:
        self.job = job

    def close(self) -> None:
        self.job.close()


def servers(host: HostContext) -> list[str]:
    return host.tools.servers()


def list_tools(host: HostContext, server: str) -> str:
    job = host.tools.list_tools(server, host.mailbox.wake)
    try:
        host.mailbox.wait(lambda: job.done)
        return job.result()
    finally:
        job.close()


def call_tool(host: HostContext, server: str, name: str, arguments: str) -> Call:
    return Call(host.tools.call(server, name, arguments, host.mailbox.wake))


def subscribe(host: HostContext, call: Call) -> Waitable:
    return Waitable(lambda: call.job.done)


def get(host: HostContext, call: Call) -> str:
    host.mailbox.wait(lambda: call.job.done)
    return call.job.result()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "servers": servers,
    "list-tools": list_tools,
    "[method]call.subscribe": subscribe,
    "[method]call.get": get,
    "call-tool": call_tool,
}
