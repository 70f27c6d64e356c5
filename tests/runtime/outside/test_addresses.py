"""Which addresses are anybody's, and which belong to this machine, its network or its cloud."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import pytest

from pie_daemon.runtime.outside.addresses import is_public, may_connect


@dataclass(frozen=True)
class Limits:
    http_hosts: tuple[str, ...] = ()
    http_networks: tuple[str, ...] = ()


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1"),
        *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255", "192.0.0.192", "198.18.0.1", "168.63.129.16"),
        *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:db8::1", "100::1"),
    ],
)
def test_what_is_not_public(text: str) -> None:
    """However it is written down."""
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808", "172.32.0.1"]
)
def test_what_is_public(text: str) -> None:
    """The rest of the world."""
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("host", "address", "hosts", "networks", "allowed"),
    [
        ("api.example.com", "8.8.8.8", (), (), True),
        ("api.example.com", "10.1.2.3", ("api.example.com",), (), False),
        ("api.example.com", "10.1.2.3", ("api.example.com",), ("10.1.0.0/16",), True),
        ("api.example.com", "10.2.2.3", ("api.example.com",), ("10.1.0.0/16",), False),
        ("api.example.com", "::ffff:10.1.2.3", (), ("10.1.0.0/16",), True),
        ("127.0.0.1", "127.0.0.1", ("*",), (), False),
        ("127.0.0.1", "127.0.0.1", ("127.0.0.1:8080",), (), True),
        ("::1", "::1", ("[::1]:*",), (), True),
        ("::1", "::1", ("[0:0:0:0:0:0:0:1]",), (), True),
        ("localhost", "127.0.0.1", ("localhost",), (), True),
        ("localhost", "10.0.0.1", ("localhost",), (), False),
        ("169.254.169.254", "169.254.169.254", ("*", "*:*"), (), False),
    ],
)
def test_an_address_that_is_not_public_is_granted_as_an_address(
    host: str, address: str, hosts: tuple[str, ...], networks: tuple[str, ...], allowed: bool
) -> None:
    """A name alone never leads into the own network: whoever owns it could lead it anywhere."""
    limits = Limits(hosts, networks)
    assert allowed == may_connect(host, ipaddress.ip_address(address), limits)
