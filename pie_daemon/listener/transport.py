"""One ROUTER socket: its options, who the peers are, and sends that tell what became of them."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import zmq

from pie_client.loop_socket import LoopSocket
from pie_daemon.errors import PieError
from pie_daemon.listener.config import AuthConfig, ListenerConfig

# sockaddr_un has 108 bytes with the terminating zero.
MAX_IPC_PATH_BYTES = 107
_IPC_PEER = re.compile(r"localhost:(\d+):(\d+):(\d+)")
# The last two: this side's own socket is closed already.
_UNREACHABLE = (zmq.EHOSTUNREACH, zmq.ENOTSOCK, zmq.ETERM)
_HANDSHAKE_MS = 5000
_BACKLOG = 1024
_QUEUED_MESSAGES = 4096


class Sent(Enum):
    OK = "ok"
    FULL = "full"
    GONE = "gone"


@dataclass(frozen=True)
class Peer:
    """Who sent a message, by what the kernel says."""

    address: str
    username: str
    operator: bool
    """May see and stop everybody's instances."""


@dataclass(frozen=True)
class Received:
    route: bytes
    address: str
    frames: list[memoryview]


class Transport:
    """A bound ROUTER. Only the thread of the loop in which it was made may touch it."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        config: ListenerConfig,
        auth: AuthConfig | None = None,
        *,
        on_message: Callable[[Transport, Received], None],
    ) -> None:
        self._guests = _uids((auth or AuthConfig()).allow_users)
        check_endpoint(endpoint, insecure=config.insecure)
        self._is_ipc = endpoint.startswith("ipc://")
        socket = context.socket(zmq.ROUTER)
        try:
            _configure(socket, config)
            if not self._is_ipc:
                socket.ipv6 = "[" in endpoint
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            raise PieError("busy", f"cannot listen on {endpoint}: {error.strerror}") from error
        self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._on_message = on_message
        self._socket = LoopSocket(socket, self._received, copies=False)
        if self._is_ipc and self._guests:
            _open_to_all(Path(endpoint.removeprefix("ipc://")))

    def _received(self, frames: list[zmq.Frame]) -> None:
        try:
            address = str(frames[-1].get("Peer-Address"))
        except zmq.ZMQError:
            address = ""
        buffers = [frame.buffer for frame in frames[1:]]
        self._on_message(self, Received(frames[0].bytes, address, buffers))

    def send(self, route: bytes, frames: tuple[bytes, ...]) -> Sent:
        """Never waits: one peer's full queue must not hold up the others."""
        try:
            return Sent.OK if self._socket.send((route, *frames)) else Sent.FULL
        except zmq.ZMQError as error:
            if error.errno not in _UNREACHABLE:
                raise
            return Sent.GONE

    def identify(self, address: str) -> Peer:
        """PieError `denied` for anybody who may not use this daemon."""
        if not self._is_ipc:
            return Peer(address, "anonymous", operator=False)
        match = _IPC_PEER.fullmatch(address)
        if match is None:
            raise PieError("denied", "the system does not tell who connects; access refused")
        uid = int(match[1])
        is_operator = uid in (0, os.geteuid())
        if not is_operator and uid not in self._guests:
            raise PieError(
                "denied",
                f"uid {uid} may not use the daemon of uid {os.geteuid()}; run your own, or have "
                "its operator add you to auth.allow_users",
            )
        return Peer(address, _username(uid), operator=is_operator)

    def close(self, linger_ms: int) -> None:
        self._socket.close(linger_ms)


def _uids(users: Iterable[str]) -> frozenset[int]:
    return frozenset(_uid(user) for user in users)


def _uid(user: str) -> int:
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise PieError(
            "invalid-argument", f"auth.allow_users names {user!r}, who is no user of this system"
        ) from None


def _open_to_all(socket_path: Path) -> None:
    """Everybody may connect; `identify` decides about every single message."""
    socket_path.parent.chmod(socket_path.parent.stat().st_mode | 0o011)
    socket_path.chmod(0o666)


def check_endpoint(endpoint: str, *, insecure: bool) -> None:
    """PieError `invalid-argument` with the way out for what cannot be listened on."""
    scheme, separator, rest = endpoint.partition("://")
    if scheme == "ipc" and separator:
        _check_ipc(rest)
    elif scheme == "tcp" and separator:
        _check_tcp(endpoint, rest, insecure)
    else:
        raise PieError(
            "invalid-argument",
            f"listener endpoint {endpoint!r} is neither ipc:///absolute/path nor tcp://host:port",
        )


def _check_ipc(path: str) -> None:
    if not path.startswith("/"):
        raise PieError("invalid-argument", f"the path of ipc://{path} is not absolute")
    if len(os.fsencode(path)) > MAX_IPC_PATH_BYTES:
        raise PieError(
            "invalid-argument",
            f"the socket path {path} has {len(os.fsencode(path))} bytes, the system allows "
            f"{MAX_IPC_PATH_BYTES}; set PIE_RUNTIME_DIR to a shorter directory",
        )
    if not Path(path).parent.is_dir():
        raise PieError("invalid-argument", f"the directory of ipc://{path} does not exist")


def _check_tcp(endpoint: str, rest: str, insecure: bool) -> None:
    host, separator, port = rest.rpartition(":")
    if not separator or not (port == "*" or port.isdigit()):
        raise PieError("invalid-argument", f"{endpoint} has no port; write tcp://host:port")
    if not insecure and not _is_loopback(host.strip("[]")):
        raise PieError(
            "denied",
            f"{endpoint} could be reached by other machines, and tcp has neither encryption nor "
            "authentication; use tcp://127.0.0.1:PORT, or set listener.insecure=true to accept it",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _configure(socket: zmq.Socket[bytes], config: ListenerConfig) -> None:
    # Without MANDATORY a message to a vanished or slow client is dropped without a word.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, _QUEUED_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, _QUEUED_MESSAGES)
    socket.setsockopt(zmq.MAXMSGSIZE, config.max_message_bytes)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)
    heartbeat_ms = max(1, int(config.heartbeat_s * 1000))
    socket.setsockopt(zmq.HEARTBEAT_IVL, heartbeat_ms)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, max(heartbeat_ms, int(config.timeout_s * 1000)))


def _username(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"
