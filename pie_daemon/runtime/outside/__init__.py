"""The world outside, as programs reach it: HTTP, and tools of MCP servers."""
