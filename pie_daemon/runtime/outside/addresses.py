"""From a host's name to an address that a program may connect to.

The name is resolved, each address is checked, and the connection goes to a checked address: what
the name would resolve to a moment later changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import httpcore

from pie_daemon.errors import PieError
from pie_daemon.runtime.outside.rules import LOCALHOST, Address, address_of, host_rule

CONNECT_S = 10.0
_MAX_TRIED = 4
_MAX_LOOKUPS = 16
Resolve = Callable[[str, int], Awaitable[list[str]]]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",  # the metadata service of Azure, on a public address
        "192.0.0.0/24",
        "192.88.99.0/24",
        "64:ff9b:1::/48",
        "100::/64",
        "fec0::/10",
    )
)


class AddressLimits(Protocol):
    """The operator's part of what may be connected to."""

    @property
    def http_hosts(self) -> tuple[str, ...]: ...

    @property
    def http_networks(self) -> tuple[str, ...]: ...


def is_public(address: Address) -> bool:
    """False for what belongs to this machine, its network or its cloud, however it is written."""
    return all(_is_plainly_public(one) for one in (address, *_inside(address)))


def _is_plainly_public(address: Address) -> bool:
    if address.is_multicast or address.is_unspecified or not address.is_global:
        return False
    return not any(address in network for network in _NEVER_PUBLIC)


def _inside(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address carries, and that gateways may connect to."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    carried = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or int(address) >> 32 == 0:
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return [one for one in carried if one is not None]


def may_connect(host: str, address: Address, limits: AddressLimits) -> bool:
    """Whether the operator lets programs reach this address under this name."""
    if is_public(address):
        return True
    plain = getattr(address, "ipv4_mapped", None) or address
    networks = map(ipaddress.ip_network, limits.http_networks)
    if any(plain in network for network in networks):
        return True
    is_literal = address_of(host) is not None or (host == LOCALHOST and plain.is_loopback)
    rules = [host_rule(text) for text in limits.http_hosts]
    return is_literal and any(rule.name != "*" and rule.names(host) for rule in rules)


def refused(host: str, addresses: Iterable[Address]) -> PieError:
    known = ", ".join(map(str, addresses))
    at = "" if known == host else f" ({known})"
    return PieError(
        "denied",
        f"{host}{at} is not a public address; to let programs reach it the operator lists the "
        "address itself in limits.http_hosts, or its network in limits.http_networks",
    )


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects only where the operator allows it, to the very address that was checked."""

    def __init__(self, limits: Callable[[], AddressLimits], resolve: Resolve) -> None:
        self._limits = limits
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the signature of httpcore
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._checked(host, port)
        for number, address in enumerate(addresses, 1):
            try:
                return await self._inner.connect_tcp(
                    str(address), port, CONNECT_S, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError(f"{host} has no address")

    async def _checked(self, host: str, port: int) -> Sequence[Address]:
        literal = address_of(host)
        found = [literal] if literal is not None else await self._addresses(host, port)
        limits = self._limits()
        allowed = [one for one in found if may_connect(host.rstrip("."), one, limits)]
        if found and not allowed:
            raise refused(host, found)
        return allowed[:_MAX_TRIED]

    async def _addresses(self, host: str, port: int) -> list[Address]:
        texts = await self._resolve(host, port)
        found = [address_of(text.partition("%")[0]) for text in dict.fromkeys(texts)]
        return [address for address in found if address is not None]

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemResolver:
    """The system's own lookup, in threads that hold up nothing when they are slow."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_MAX_LOOKUPS)

    async def __call__(self, host: str, port: int) -> list[str]:
        """
        Raises:
            PieError: not-found, when there is no such name.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str], error: PieError | None) -> None:
            # Not before: a lookup whose program has given up takes its thread all the same.
            self._free.release()
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found)

        def look_up() -> None:
            found, error = _look_up(host, port)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found, error)

        threading.Thread(target=look_up, name="lookup", daemon=True).start()
        return await answer


def _look_up(host: str, port: int) -> tuple[list[str], PieError | None]:
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [], PieError("not-found", f"there is no host {host}: {error}")
    return [str(info[4][0]) for info in infos], None
