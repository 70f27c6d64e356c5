"""What manifests and the operator write about hosts and tools, and what it allows.

A program may do what every list on its way allows: the operator's, its manifest's, and those of
the programs above it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
SCHEME_PORTS = {"http": 80, "https": 443}
LOCALHOST = "localhost"
ABOVE = ", and to that of the programs which launch this one"
"""What to add to the advice about a manifest where there are several."""


def address_of(name: str) -> Address | None:
    """The address that a host's name is already."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes; `host` in lower case, ASCII, without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == SCHEME_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HostRule:
    """`api.example.com`, `*.example.org`, `*`, `127.0.0.1:8080`, `[::1]:*`."""

    name: str
    port: str
    """Empty: the scheme's own. `*`: any."""

    def names(self, host: str) -> bool:
        if self.name == "*":
            return True
        if self.name.startswith("*."):
            return host.endswith(self.name[1:]) and address_of(host) is None
        return host == self.name or _same_address(host, self.name)

    def allows(self, target: Target) -> bool:
        if not self.names(target.host):
            return False
        own = SCHEME_PORTS[target.scheme]
        return self.port == "*" or target.port == (int(self.port) if self.port else own)


def _same_address(one: str, other: str) -> bool:
    address = address_of(one)
    return address is not None and address == address_of(other)


@lru_cache(maxsize=1024)
def host_rule(text: str) -> HostRule:
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        return HostRule(name, port.removeprefix(":"))
    name, _, port = text.partition(":")
    return HostRule(name, port)


def hosts_allow(rules: Iterable[str], target: Target) -> bool:
    return any(host_rule(rule).allows(target) for rule in rules)


def allowed_tools(lists: Sequence[Sequence[str]], server: str) -> frozenset[str] | None:
    """What all lists allow of a server; None is every tool."""
    found: frozenset[str] | None = None
    for rules in lists:
        names = _tools_of(rules, server)
        if names is not None:
            found = names if found is None else found & names
    return found


def _tools_of(rules: Sequence[str], server: str) -> frozenset[str] | None:
    names = set()
    for rule in rules:
        wanted, _, tool = rule.partition("/")
        if wanted not in ("*", server):
            continue
        if tool in ("", "*"):
            return None
        names.add(tool)
    return frozenset(names)
