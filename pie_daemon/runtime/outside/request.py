"""What a program may send: one request, checked before anything leaves the machine."""

from __future__ import annotations

import re
from typing import Protocol

import httpx

from pie_daemon import __version__
from pie_daemon.errors import PieError
from pie_daemon.host.outside import WebRequest
from pie_daemon.runtime.outside.rules import ABOVE, SCHEME_PORTS, Target, address_of, hosts_allow

_MAX_URL = 8192
_MAX_HEADERS = 100
_MAX_HEADERS_BYTES = 65_536
_METHOD = re.compile(r"[A-Z]{1,20}")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?\.?")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_REFUSED_METHODS = ("CONNECT", "TRACE")
_OWN_HEADERS = frozenset(
    "connection content-length expect host keep-alive proxy-authenticate proxy-authorization "
    "proxy-connection te trailer transfer-encoding upgrade".split()
)
_DEFAULTS = {
    "accept": "*/*",
    # The program gets the bytes as they come: what is small on the way must not grow here.
    "accept-encoding": "identity",
    "user-agent": f"pie/{__version__}",
}


class RequestLimits(Protocol):
    @property
    def http_request_bytes(self) -> int: ...

    @property
    def http_hosts(self) -> tuple[str, ...]: ...


def build(asked: WebRequest, limits: RequestLimits) -> httpx.Request:
    """
    Raises:
        PieError: invalid-argument, or exhausted for what is too large.
    """
    if not _METHOD.fullmatch(asked.method) or asked.method in _REFUSED_METHODS:
        raise _invalid(f"{asked.method!r} is no method; GET and POST are, for example")
    size_bytes = len(asked.body)
    if size_bytes > limits.http_request_bytes:
        raise PieError(
            "exhausted",
            f"a body of {size_bytes} bytes is over limits.http_request_bytes="
            f"{limits.http_request_bytes}",
        )
    url = _url(asked.url)
    return httpx.Request(
        asked.method, url, headers=_headers(asked.headers), content=asked.body or None
    )


def _url(text: str) -> httpx.URL:
    if len(text) > _MAX_URL:
        raise _invalid(f"a URL of {len(text)} characters; at most {_MAX_URL} are allowed")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise _invalid(f"{text!r} is no URL: {error}") from None
    return url


def target_of(url: httpx.URL) -> Target:
    """
    Raises:
        PieError: invalid-argument for what is no http(s) URL with a plain host.
    """
    if url.scheme not in SCHEME_PORTS:
        raise _invalid(f"{str(url)!r} begins neither with http:// nor with https://")
    if url.userinfo:
        raise _invalid("user and password belong into an `authorization` header, not into the URL")
    host = url.raw_host.decode("ascii")
    if "%" in host:
        raise _invalid(f"{host!r} is no host")
    if not 0 < (url.port or 1) < 65536:
        raise _invalid(f"port {url.port} does not exist")
    if address_of(host) is None:
        if not _HOST.fullmatch(host):
            raise _invalid(f"{host!r} is no host")
        if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise _invalid(f"write the address {host} as four decimal numbers")
    return Target(url.scheme, host.rstrip("."), url.port or SCHEME_PORTS[url.scheme])


def _headers(given: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    if len(given) > _MAX_HEADERS:
        raise PieError("exhausted", f"{len(given)} headers; at most {_MAX_HEADERS} are allowed")
    for name, value in given:
        _check_header(name, value)
    names = {name.lower() for name, _ in given}
    added = [(name, value) for name, value in _DEFAULTS.items() if name not in names]
    headers = [(name.encode(), value.strip(" \t").encode()) for name, value in [*added, *given]]
    size_bytes = sum(len(name) + len(value) for name, value in headers)
    if size_bytes > _MAX_HEADERS_BYTES:
        raise PieError(
            "exhausted", f"headers of {size_bytes} bytes; at most {_MAX_HEADERS_BYTES} are allowed"
        )
    return headers


def _check_header(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise _invalid(f"{name!r} is no name of a header")
    if not _VALUE.fullmatch(value):
        raise _invalid(f"the value of header {name!r} holds a line break or another control sign")
    if name.lower() in _OWN_HEADERS:
        raise _invalid(f"header {name!r} is the daemon's own affair; leave it out")


def check_granted(
    target: Target, operator: tuple[str, ...], manifests: tuple[tuple[str, ...], ...]
) -> None:
    """
    Args:
        manifests: What the program's manifest asks for, and those of the programs above it.

    Raises:
        PieError: denied, with who has to allow what.
    """
    if not all(hosts_allow(rules, target) for rules in manifests):
        raise PieError(
            "denied",
            f"the manifest does not ask for {target}: add it to `http` under [grants] in pie.toml"
            + ABOVE * bool(manifests[1:]),
        )
    if not hosts_allow(operator, target):
        raise PieError(
            "denied", f"the operator does not allow {target}: it is not in limits.http_hosts"
        )


def _invalid(message: str) -> PieError:
    return PieError("invalid-argument", message)
