"""What the lists of hosts and tools allow."""

from __future__ import annotations

import pytest

from pie_daemon.runtime.outside.rules import Target, allowed_tools, hosts_allow


@pytest.mark.parametrize(
    ("rule", "scheme", "host", "port", "allowed"),
    [
        ("api.example.com", "https", "api.example.com", 443, True),
        ("api.example.com", "http", "api.example.com", 80, True),
        ("api.example.com", "https", "api.example.com", 8443, False),
        ("api.example.com", "http", "api.example.com", 443, False),
        ("api.example.com:8443", "https", "api.example.com", 8443, True),
        ("api.example.com:8443", "https", "api.example.com", 443, False),
        ("api.example.com:*", "https", "api.example.com", 22, True),
        ("api.example.com", "https", "evil-api.example.com", 443, False),
        ("api.example.com", "https", "api.example.com.evil.org", 443, False),
        ("*.example.org", "https", "a.b.example.org", 443, True),
        ("*.example.org", "https", "example.org", 443, False),
        ("*.example.org", "https", "badexample.org", 443, False),
        ("*", "https", "anything.net", 443, True),
        ("*", "https", "anything.net", 22, False),
        ("*:*", "http", "anything.net", 22, True),
        ("[::1]:80", "http", "::1", 80, True),
        ("127.0.0.1:80", "http", "127.0.0.1", 80, True),
        ("*.0.0.1", "http", "127.0.0.1", 80, False),
    ],
)
def test_host_rules(rule: str, scheme: str, host: str, port: int, allowed: bool) -> None:
    """Without a port a rule means the scheme's own; a star stands for whole labels."""
    assert allowed == hosts_allow([rule], Target(scheme, host, port))


@pytest.mark.parametrize(
    ("lists", "tools"),
    [
        ([("*",), ("calc",)], None),
        ([("*",), ()], set()),
        ([("calc/*",), ("calc/add", "calc/sub")], {"add", "sub"}),
        ([("calc/add", "calc/mul"), ("calc/add", "other")], {"add"}),
        ([("calc/add",), ("calc/sub",)], set()),
        ([("*/add",), ("calc",), ("calc/add", "calc/sub")], {"add"}),
        ([("calc/a/b",)], {"a/b"}),
        ([("calculator",)], set()),
    ],
)
def test_tool_rules(lists: list[tuple[str, ...]], tools: set[str] | None) -> None:
    """A tool is allowed that every list allows."""
    assert tools == allowed_tools(lists, "calc")
