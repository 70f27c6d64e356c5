"""Where the daemon listens and whom it lets in."""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq

from pie_daemon.errors import PieError
from pie_daemon.listener.config import AuthConfig, ListenerConfig
from pie_daemon.listener.transport import Transport, check_endpoint
from support.listening import listening


@pytest.mark.parametrize(
    ("endpoint", "code", "hint"),
    [
        ("tcp://0.0.0.0:5555", "denied", "listener.insecure=true"),
        ("tcp://*:5555", "denied", "listener.insecure=true"),
        ("tcp://192.168.1.5:*", "denied", "127.0.0.1"),
        ("tcp://example.org:1", "denied", "127.0.0.1"),
        ("tcp://127.0.0.1", "invalid-argument", "tcp://host:port"),
        ("tcp://127.0.0.1:http", "invalid-argument", "tcp://host:port"),
        ("ipc://pie.sock", "invalid-argument", "not absolute"),
        ("ipc://@pie", "invalid-argument", "not absolute"),
        ("ipc:///tmp/" + "x" * 120, "invalid-argument", "107; set PIE_RUNTIME_DIR"),
        ("ipc:///no/such/directory/pie.sock", "invalid-argument", "does not exist"),
        ("inproc://pie", "invalid-argument", "neither ipc"),
        ("pie.sock", "invalid-argument", "neither ipc"),
    ],
)
def test_bad_endpoints_are_refused_with_the_way_out(endpoint: str, code: str, hint: str) -> None:
    """An endpoint that cannot or must not be used is refused with a reason."""
    with pytest.raises(PieError) as raised:
        check_endpoint(endpoint, insecure=False)
    assert raised.value.code == code
    assert hint in raised.value.message


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:*", "tcp://[::1]:80", "tcp://localhost:9"])
def test_loopback_is_allowed(endpoint: str) -> None:
    """Tcp on loopback needs no permission."""
    check_endpoint(endpoint, insecure=False)


def test_insecure_allows_every_address() -> None:
    """Written permission opens tcp to other machines."""
    check_endpoint("tcp://*:5555", insecure=True)


NOBODY = pwd.getpwnam("nobody").pw_uid


def bound(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, auth: AuthConfig | None = None
) -> Transport:
    """What it hears is of no concern."""
    return Transport(context, endpoint, ListenerConfig(), auth, on_message=lambda *_: None)


@pytest.fixture
async def ipc() -> AsyncIterator[Transport]:
    with tempfile.TemporaryDirectory(prefix="pie-") as directory, zmq.Context() as context:
        transport = bound(context, f"ipc://{directory}/s")
        yield transport
        transport.close(0)


async def test_allowed_users_may_connect_and_are_no_operators() -> None:
    """By name or uid; the socket opens for them, everybody else is refused by identity."""
    auth = AuthConfig(allow_users=("nobody", "12345"))
    with tempfile.TemporaryDirectory(prefix="pie-") as directory, zmq.Context() as context:
        endpoint = f"ipc://{directory}/s"
        transport = bound(context, endpoint, auth)
        try:
            assert not transport.identify("localhost:12345:5:99").operator
            assert transport.identify(f"localhost:{NOBODY}:5:99").username == "nobody"
            with pytest.raises(PieError, match="allow_users"):
                transport.identify("localhost:54321:5:99")
            assert (Path(directory) / "s").stat().st_mode & 0o777 == 0o666
        finally:
            transport.close(0)


async def test_an_unknown_allowed_user_is_named() -> None:
    """A typo in the configuration must not pass for a rule."""
    with zmq.Context() as context, pytest.raises(PieError, match="nobudy"):
        bound(context, "tcp://127.0.0.1:*", AuthConfig(allow_users=("nobudy",)))


async def test_own_uid_and_root_are_operators(ipc: Transport) -> None:
    """This user and root may use the daemon."""
    assert ipc.identify(f"localhost:{os.geteuid()}:5:99").operator
    root = ipc.identify("localhost:0:0:99")
    assert (root.username, root.operator) == ("root", True)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:12345:0:1",
        "",
        "127.0.0.1",
        "localhost:0:0",
        "localhost:0:0:1:2",
        "localhost:-0:0:1",
    ],
)
async def test_everybody_else_is_denied(ipc: Transport, address: str) -> None:
    """Other uids are denied, and so is an address that cannot be read."""
    with pytest.raises(PieError) as raised:
        ipc.identify(address)
    assert raised.value.code == "denied"


CLIENT = """
import os, sys, asyncio
import pie_client.link
from pie_client import AsyncClient, PieError
os.setgid(65534); os.setuid(65534)
async def main():
    try:
        await AsyncClient.connect(sys.argv[1])
    except PieError as error:
        print(error.code, error.message)
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_denied_over_a_real_socket() -> None:
    """The kernel tells the uid of a peer; a stranger who can reach the socket gets `denied`."""
    async with listening() as daemon:
        daemon.directory.chmod(0o755)
        (daemon.directory / "pie.sock").chmod(0o777)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, daemon.ipc, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate()
    assert out.decode().startswith("denied uid 65534 may not use the daemon of uid 0")


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """An endpoint that somebody else has bound is named in the error."""
    with zmq.Context() as context:
        first = bound(context, "tcp://127.0.0.1:*")
        with pytest.raises(PieError, match=f"cannot listen on {first.endpoint}") as raised:
            bound(context, first.endpoint)
        assert raised.value.code == "busy"
        first.close(0)
