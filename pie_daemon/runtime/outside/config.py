"""The `mcp` section of the configuration: servers whose tools programs may be granted."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pie_daemon.settings import Count, Seconds, setting


class McpServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of `mcp.servers`: a command, or a url."""

    command: Annotated[
        str | None,
        setting(
            "Program that speaks MCP over its stdin and stdout; started at its first use",
            reload="live",
            why="an entry has either this or a url",
        ),
    ] = None
    args: Annotated[
        tuple[str, ...],
        setting("Arguments of the command", reload="live", why="many servers need none"),
    ] = ()
    env: Annotated[
        dict[str, str],
        setting(
            "Environment of the command, beside HOME, LOGNAME, PATH, SHELL, TERM and USER",
            reload="live",
            why="the daemon's own environment is not the server's business",
            secret=True,
        ),
    ] = {}
    cwd: Annotated[
        str | None,
        setting(
            "Folder in which the command runs; null: the daemon's",
            reload="live",
            why="few servers care",
        ),
    ] = None
    url: Annotated[
        str | None,
        setting(
            "Address of a server that speaks MCP over streamable HTTP",
            reload="live",
            why="an entry has either this or a command",
        ),
    ] = None
    headers: Annotated[
        dict[str, str],
        setting(
            "Headers of every request to the url, such as authorization",
            reload="live",
            why="servers on the own machine need none",
            secret=True,
        ),
    ] = {}


class McpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Servers of the Model Context Protocol, whose tools programs may use where granted."""

    servers: dict[str, McpServer] = {}
    start_s: Annotated[
        Seconds,
        setting(
            "How long a server may take to start and to say what it is",
            unit="s",
            reload="live",
            why="some fetch themselves from a package registry first",
        ),
    ] = 60.0
    call_s: Annotated[
        Seconds,
        setting(
            "How long one call of a tool may take, with the wait for its turn",
            unit="s",
            reload="live",
            why="as long as an exchange over HTTP",
        ),
    ] = 60.0
    calls: Annotated[
        Count,
        setting(
            "Calls that one server works on at a time; further ones wait",
            unit="calls",
            reload="live",
            why="most servers do one thing at a time anyway",
        ),
    ] = 8
