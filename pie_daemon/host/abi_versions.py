"""Which version of an interface a host may stand in for."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = re.compile(r"(?P<path>[^@]+)(?:@(?P<version>\d+\.\d+\.\d+)(?:[-+].*)?)?\Z")


class InterfaceName(NamedTuple):
    path: str  # "namespace:package/interface"
    version: tuple[int, int, int] | None


def parse_name(name: str) -> InterfaceName:
    match = _NAME.match(name)
    if match is None:
        return InterfaceName(name, None)
    version = match["version"]
    if version is None:
        return InterfaceName(match["path"], None)
    major, minor, patch = (int(part) for part in version.split("."))
    return InterfaceName(match["path"], (major, minor, patch))


def satisfies(offered: str, wanted: str) -> bool:
    """Whether a host that offers one interface serves a component that imports the other.

    Within 0.N only functions are added, as within N: the patch (and, from 1.0 on, the minor)
    may differ in both directions. Functions that an older host lacks are reported one by one.
    """
    host, guest = parse_name(offered), parse_name(wanted)
    if host.path != guest.path:
        return False
    if host.version is None or guest.version is None:
        return host.version == guest.version
    if host.version[0] != guest.version[0]:
        return False
    return host.version[0] > 0 or host.version[1] == guest.version[1]
