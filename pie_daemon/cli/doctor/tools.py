"""Checks of the MCP servers that the configuration declares; none of them is started."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pie_daemon.cli.doctor.check import Result, ok
from pie_daemon.config import PieConfig
from pie_daemon.runtime.outside.config import McpServer


def mcp_servers(config: PieConfig) -> Result:
    servers = config.mcp.servers
    if not servers:
        return ok("no MCP servers are declared")
    for name, server in servers.items():
        if (problem := _missing(name, server)) is not None:
            return problem
    if not config.limits.tools:
        return Result(
            "warn",
            f"MCP servers are declared ({', '.join(servers)}), and no program may use them",
            "limits.tools is empty",
            f'set limits.tools, for example to ["{next(iter(servers))}"]',
        )
    return ok(f"MCP servers: {', '.join(servers)}")


def _missing(name: str, server: McpServer) -> Result | None:
    if server.command is None:
        return None
    why = "its tools answer `not-found`"
    if server.cwd is not None and not Path(server.cwd).is_dir():
        summary = f"MCP server {name}: there is no folder {server.cwd}"
        return Result("warn", summary, why, f"correct mcp.servers.{name}.cwd")
    search = server.env.get("PATH", os.environ.get("PATH"))
    if shutil.which(server.command, path=search) is None:
        fix = f"install it, or put its full path into mcp.servers.{name}.command"
        return Result("warn", f"MCP server {name}: no command {server.command!r}", why, fix)
    return None
