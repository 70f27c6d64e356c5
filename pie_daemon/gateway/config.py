"""The gateway's own section of the configuration, and whom such a configuration would let in."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec
from msgspec import Meta

from pie_daemon.settings import Count, Seconds, setting

API_KEY = r"^[A-Za-z0-9._-]{1,64}:[!-~]{16,}$"


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The OpenAI-compatible endpoint over HTTP."""

    enabled: Annotated[
        bool,
        setting(
            "Serve the endpoint; `gateway=on` is the same",
            reload="restart",
            why="a port is opened only for those who ask for it",
        ),
    ] = False
    host: Annotated[
        str,
        setting(
            "Address to listen on",
            reload="restart",
            why="programs of this machine only",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)],
        setting("TCP port; 0: any free one", reload="restart", why="where clients look first"),
    ] = 8000
    api_keys: Annotated[
        tuple[Annotated[str, Meta(pattern=API_KEY)], ...],
        setting(
            "Who may use the endpoint: each entry `USER:SECRET`, the secret at least 16 characters "
            "long; programs run as that user. Empty: everybody who reaches the port, as "
            "`anonymous`. `${oc.env:NAME}` takes an entry from the environment",
            reload="restart",
            why="on a loopback address only users of this machine reach it",
            secret=True,
        ),
    ] = ()
    insecure: Annotated[
        bool,
        setting(
            "Accept, without api_keys, an address that other machines can reach",
            reload="restart",
            why="whoever reaches the port could use the model and every program",
        ),
    ] = False
    max_body_bytes: Annotated[
        Count,
        setting(
            "The largest body of a request",
            unit="bytes",
            reload="restart",
            why="a book of text; larger ones fit into no context",
        ),
    ] = 4 << 20
    max_answer_bytes: Annotated[
        Count,
        setting(
            "The longest text of one choice; a program that says more is ended",
            unit="bytes",
            reload="restart",
            why="answers that are not streamed are held in memory",
        ),
    ] = 16 << 20
    max_choices: Annotated[
        Count,
        setting(
            "Choices of one request, `n` times its prompts; each is a program of its own",
            unit="choices",
            reload="restart",
            why="enough for a vote; one request does not take the place of hundreds",
        ),
    ] = 16
    max_connections: Annotated[
        Count,
        setting(
            "Connections at a time; requests on further ones are answered with 503",
            unit="connections",
            reload="restart",
            why="far from the usual limit of 1024 open files",
        ),
    ] = 512
    read_timeout_s: Annotated[
        Seconds,
        setting(
            "How long a client may take to send a request",
            unit="s",
            reload="restart",
            why="the largest body over a slow line; a connection that says nothing is closed",
        ),
    ] = 30.0
    write_timeout_s: Annotated[
        Seconds,
        setting(
            "How long a client may take nothing of its answer before the connection is closed",
            unit="s",
            reload="restart",
            why="a reader that pauses is waited for, one that is gone is not",
        ),
    ] = 30.0
    keep_alive_s: Annotated[
        Seconds,
        setting(
            "How long a connection stays open without a request",
            unit="s",
            reload="restart",
            why="longer than the pools of common clients keep one, so that they close first",
        ),
    ] = 75.0
    comment_s: Annotated[
        Seconds,
        setting(
            "Silence after which a stream carries a comment, so that nothing between takes it for "
            "dead",
            unit="s",
            reload="restart",
            why="half of what proxies wait for at least",
        ),
    ] = 15.0
    request_timeout_s: Annotated[
        Seconds,
        setting(
            "How long the program of a request may run; then it is ended and the answer is 504",
            unit="s",
            reload="restart",
            why="as long as the client of OpenAI waits",
        ),
    ] = 600.0


def exposure(config: GatewayConfig) -> str | None:
    """Why this may not be served: other machines could use it without a key. None: it may."""
    if not config.enabled or config.api_keys or config.insecure or is_loopback(config.host):
        return None
    return (
        f"{config.host!r} can be reached by other machines, and there are no gateway.api_keys; "
        "set some, use 127.0.0.1, or accept it with gateway.insecure=true"
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
