"""Tools of MCP servers for programs: granted ones only, and bounded in every way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from pie_daemon.errors import PieError
from pie_daemon.runtime.outside.config import McpConfig
from pie_daemon.runtime.outside.link import Link
from pie_daemon.runtime.outside.loop import Job, Loop
from pie_daemon.runtime.outside.rules import ABOVE, allowed_tools

if TYPE_CHECKING:
    from mcp import Client

_MAX_PAGES = 100
_CLOSE_S = 12.0
T = TypeVar("T")


class ToolLimits(Protocol):
    @property
    def tools(self) -> tuple[str, ...]: ...

    @property
    def tool_calls(self) -> int: ...

    @property
    def tool_bytes(self) -> int: ...


class Tools:
    """The MCP servers of a daemon. `config` and `limits` are asked anew for every call."""

    def __init__(
        self, loop: Loop, config: Callable[[], McpConfig], limits: Callable[[], ToolLimits]
    ) -> None:
        self.loop = loop
        self.config = config
        self.limits = limits
        self._links: dict[str, Link] = {}

    async def request(self, server: str, send: Callable[[Client], Awaitable[T]]) -> T:
        return await (await self._link(server)).request(send)

    async def _link(self, name: str) -> Link:
        """The line of the moment: what was declared anew is a new one."""
        declared = self.config().servers.get(name)
        link = self._links.get(name)
        if link is not None and link.server != declared:
            del self._links[name]
            self.loop.discard(link.close())
            link = None
        if declared is None:
            raise PieError("not-found", f"no MCP server is called {name!r} any more")
        if link is None:
            link = self._links[name] = Link(name, declared, self.config)
        return link

    def close(self) -> None:
        """Ends all servers; returns when they have ended."""
        self.loop.finish(self._close(), _CLOSE_S)

    async def _close(self) -> None:
        links = list(self._links.values())
        self._links.clear()
        for link in links:
            link.ask_to_end()
        for link in links:
            await link.close()


class ProgramTools:
    """What one instance has of them; belongs to the instance's thread."""

    def __init__(self, tools: Tools, manifests: tuple[tuple[str, ...], ...]) -> None:
        self._tools = tools
        self._manifests = manifests
        self._num_open = 0

    def servers(self) -> list[str]:
        return [name for name in sorted(self._tools.config().servers) if self._has(name, None)]

    def list_tools(self, server: str, notify: Callable[[], None]) -> Job[str]:
        """
        Raises:
            PieError: whatever can be said without asking anybody; all else the job tells.
        """
        self._check(server, None)
        return self._submit(self._listed(server), notify)

    def call(self, server: str, name: str, arguments: str, notify: Callable[[], None]) -> Job[str]:
        """Raises like `list_tools`."""
        self._check(server, name)
        return self._submit(self._called(server, name, self._parsed(arguments)), notify)

    def _allowed(self, server: str) -> frozenset[str] | None:
        """The names of the tools; None is all of them."""
        return allowed_tools((self._tools.limits().tools, *self._manifests), server)

    def _has(self, server: str, tool: str | None) -> bool:
        return _covers(self._allowed(server), tool)

    def _check(self, server: str, tool: str | None) -> None:
        wanted = server if tool is None else f"{server}/{tool}"
        if not _covers(allowed_tools(self._manifests, server), tool):
            raise PieError(
                "denied",
                f"the manifest does not ask for {wanted}: add it to `tools` under [grants] in "
                "pie.toml" + ABOVE * bool(self._manifests[1:]),
            )
        if server not in self._tools.config().servers:
            there = ", ".join(self.servers()) or "none"
            raise PieError("not-found", f"no MCP server is called {server!r}; there are: {there}")
        if not self._has(server, tool):
            message = f"the operator does not allow {wanted}: it is not in limits.tools"
            raise PieError("denied", message)

    def _parsed(self, arguments: str) -> dict[str, Any]:
        self._check_size("arguments", arguments)
        try:
            return msgspec.json.decode(arguments.encode() or b"{}", type=dict[str, Any])
        except msgspec.MsgspecError as error:
            message = f"the arguments of a tool are a JSON object: {error}"
            raise PieError("invalid-argument", message) from None

    def _check_size(self, what: str, text: str) -> None:
        size_bytes, most = len(text.encode()), self._tools.limits().tool_bytes
        if size_bytes > most:
            raise PieError(
                "exhausted", f"{what} of {size_bytes} bytes are over limits.tool_bytes={most}"
            )

    def _submit(self, work: Coroutine[Any, Any, str], notify: Callable[[], None]) -> Job[str]:
        most = self._tools.limits().tool_calls
        if self._num_open >= most:
            work.close()
            raise PieError(
                "exhausted",
                f"{self._num_open} calls are open (limits.tool_calls={most}); take their results "
                "and drop them",
            )
        job = self._tools.loop.submit(work, notify, self._forget_one)
        self._num_open += 1
        return job

    def _forget_one(self) -> None:
        self._num_open -= 1

    # On the loop's thread

    async def _listed(self, server: str) -> str:
        async def send(client: Client) -> list[Any]:
            return await _all_tools(client)

        allowed = self._allowed(server)
        tools = [
            tool.model_dump_json(by_alias=True, exclude_none=True)
            for tool in await self._tools.request(server, send)
            if allowed is None or tool.name in allowed
        ]
        text = f'{{"tools":[{",".join(tools)}]}}'
        self._check_size("lists of tools", text)
        return text

    async def _called(self, server: str, name: str, arguments: dict[str, Any]) -> str:
        async def send(client: Client) -> str:
            result = await client.call_tool(name, arguments)
            return result.model_dump_json(by_alias=True, exclude_none=True)

        text = await self._tools.request(server, send)
        self._check_size("results", text)
        return text


def _covers(allowed: frozenset[str] | None, tool: str | None) -> bool:
    """No tool: any of them will do."""
    return allowed is None or (bool(allowed) if tool is None else tool in allowed)


async def _all_tools(client: Client) -> list[Any]:
    tools: list[Any] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise PieError("exhausted", f"more than {_MAX_PAGES} pages of tools")
