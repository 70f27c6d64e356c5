"""The listener: sockets in, commands run, answers out; every request is answered exactly once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
import zmq

from pie_client import wire
from pie_client.codec import NOTICE, WireError, decode_request, encode, unsupported_version
from pie_daemon.errors import PieError
from pie_daemon.listener.commands import Commands
from pie_daemon.listener.config import AuthConfig, ListenerConfig
from pie_daemon.listener.lock import DaemonLock, acquire
from pie_daemon.listener.seams import Services
from pie_daemon.listener.session import Session
from pie_daemon.listener.transport import Received, Transport
from pie_daemon.tasks import Tasks

_log = structlog.get_logger()

# How often a client whose queue was full is tried again.
_RETRY_S = 0.02
_LINGER_MS = 500
_BAD_MESSAGE_LOG_S = 10.0
# How often expired uploads are looked for.
_SWEEP_S = 60.0


class Server:
    """Owns the sockets, the sessions and the lock of the runtime directory."""

    def __init__(
        self,
        config: ListenerConfig,
        services: Services,
        runtime_dir: Path,
        uploads_dir: Path,
        lock: DaemonLock | None = None,
        auth: AuthConfig | None = None,
    ) -> None:
        """`lock`: taken earlier by the caller, who then releases it; else `start` takes it."""
        self.config = config
        self._auth = auth
        self._runtime_dir = runtime_dir
        self._uploads_dir = uploads_dir
        self._services = services
        self._own_lock: DaemonLock | None = None
        self._needs_lock = lock is None
        self._transports: list[Transport] = []
        self._sessions: dict[tuple[str, bytes], Session] = {}
        self._blocked: set[Session] = set()
        self._num_bad_messages = 0
        self._bad_message_logged_s = float("-inf")
        self._closing = False
        self._deaf = False

    @property
    def endpoints(self) -> list[str]:
        """Where it listens, with the real port where a free one was asked for."""
        return [transport.endpoint for transport in self._transports]

    @property
    def sessions(self) -> list[Session]:
        return list(self._sessions.values())

    @property
    def commands(self) -> Commands:
        """What answers requests; known once it has started."""
        return self._commands

    async def start(self) -> None:
        """Bound when it returns; AlreadyRunning or PieError, with nothing left behind, if not."""
        if self._needs_lock:
            self._own_lock = acquire(self._runtime_dir)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._bind()
        except PieError:
            self._close_sockets(0)
            self._context.term()
            self._release()
            raise
        self._commands = Commands(self.config, self._services, self._uploads_dir)
        self._commands.endpoints = self.endpoints
        self._commands.count_sessions = lambda: len(self._sessions)
        self._commands.end_session = lambda session: self._end(session, grace_s=0)
        self._handlers = Tasks("listener.command")
        self._tasks = Tasks("listener")
        self._tasks.spawn(self._watch(), "watch")
        _log.info("listening", endpoints=self.endpoints)

    def drain(self) -> None:
        """From now on nothing new is launched or uploaded; clients still get their events."""
        self._commands.draining = True

    async def close(self, reason: str = "the daemon is stopping") -> None:
        """Answers what is open with `closed`, says goodbye, and frees socket and lock."""
        if self._closing:
            return
        self._closing = True
        # 1. Requests that still run are cancelled; each answers `closed`.
        await self._handlers.close()
        # 2. No more reading, no more heartbeats.
        self._deaf = True
        await self._tasks.close()
        # 3. Clients learn why at once, instead of by silence.
        for session in list(self._sessions.values()):
            session.flush()
            self._commands.following.pump_session(session)
            session.notice(wire.Goodbye(reason=reason))
            self._commands.following.forget(session)
            session.close()
        self._sessions.clear()
        # 4. The last words leave the sockets; this may take up to the linger time.
        self._commands.close()
        self._close_sockets(_LINGER_MS)
        await asyncio.get_running_loop().run_in_executor(None, self._context.term)
        self._release()

    # --- sockets ------------------------------------------------------------------------------

    def _bind(self) -> None:
        self._runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        endpoints = self.config.endpoints or (f"ipc://{self._runtime_dir}/pie.sock",)
        for endpoint in endpoints:
            transport = Transport(
                self._context, endpoint, self.config, self._auth, on_message=self._hear
            )
            self._transports.append(transport)
        if self.config.insecure:
            _log.warning("clients are not authenticated and nothing is encrypted over tcp")

    def _close_sockets(self, linger_ms: int) -> None:
        for transport in self._transports:
            transport.close(linger_ms)
        self._transports.clear()

    def _release(self) -> None:
        if self._own_lock is not None:
            self._own_lock.release()

    def _hear(self, transport: Transport, received: Received) -> None:
        if self._deaf:
            return
        try:
            self._on_message(transport, received)
        except Exception:  # noqa: BLE001 - one message must never make the daemon deaf
            _log.error("message failed", exc_info=True)

    # --- messages -----------------------------------------------------------------------------

    def _on_message(self, transport: Transport, received: Received) -> None:
        try:
            correlation, request = decode_request(received.frames, self.config.max_message_bytes)
        except WireError as error:
            self._count_bad_message(error, received)
            self._refuse(transport, received, error)
            return
        try:
            session = self._session(transport, received, request)
        except WireError as error:
            self._refuse(transport, received, error, correlation)
        except PieError as error:
            refusal = WireError(error.code, error.message)
            self._count_bad_message(refusal, received)
            self._refuse(transport, received, refusal, correlation)
        else:
            self._on_request(session, correlation, request, len(received.frames[1]))

    def _session(
        self, transport: Transport, received: Received, request: wire.AnyRequest
    ) -> Session:
        """The session of the sender; a new one for a hello that is in order."""
        session = self._sessions.get((transport.endpoint, received.route))
        # Routes can be chosen by peers, addresses cannot: nobody inherits another's session.
        if session is not None and session.peer.address == received.address:
            session.last_seen_s = asyncio.get_running_loop().time()
            return session
        if session is not None or not isinstance(request, wire.Hello):
            text = "this connection has no session (any more): say hello first"
            raise WireError("closed", text, detail={"hello": True})
        if wire.PROTOCOL_VERSION not in request.versions:
            raise unsupported_version(request.versions, NOTICE)
        if len(self._sessions) >= self.config.max_sessions:
            raise PieError("busy", f"{len(self._sessions)} clients are connected, the limit")
        return self._open(transport, received)

    def _open(self, transport: Transport, received: Received) -> Session:
        session = Session(
            transport,
            received.route,
            transport.identify(received.address),
            on_blocked=self._on_blocked,
            on_lost=self._on_lost,
        )
        session.last_seen_s = asyncio.get_running_loop().time()
        self._sessions[session.key] = session
        return session

    def _on_request(
        self, session: Session, correlation: int, request: wire.AnyRequest, num_bytes: int
    ) -> None:
        if correlation == NOTICE and not isinstance(request, wire.Ack):
            text = "correlation id 0 asks for no answer; only ack may do that"
            session.notice(wire.Error(code="invalid-argument", message=text))
            return
        if self._is_over_limit(session, num_bytes):
            text = "too many unanswered requests; wait for answers before you send more"
            busy = encode(wire.Error(code="busy", message=text), correlation)
            session.reply(busy, self.config.max_outbox_bytes)
            return
        if type(request) not in self._commands.later:
            self._answer_at_once(session, correlation, request)
            return
        session.num_requests += 1
        session.request_bytes += num_bytes
        name = str(request.__struct_config__.tag)
        self._handlers.spawn(self._answer(session, correlation, request, num_bytes), name)

    def _is_over_limit(self, session: Session, num_bytes: int) -> bool:
        return (
            session.num_requests >= self.config.max_requests
            or session.request_bytes + num_bytes > self.config.max_request_bytes
        )

    def _answer_at_once(self, session: Session, correlation: int, request: wire.AnyRequest) -> None:
        try:
            frames = encode(self._commands.at_once[type(request)](session, request), correlation)
        except Exception as error:  # noqa: BLE001 - the command edge
            frames = encode(_failure(session, request, error), correlation)
        self._reply(session, correlation, frames)

    async def _answer(
        self, session: Session, correlation: int, request: wire.AnyRequest, num_bytes: int
    ) -> None:
        stopped = wire.Error(code="closed", message="the daemon stopped before it was done")
        frames = encode(stopped, correlation)
        try:
            frames = encode(
                await self._commands.later[type(request)](session, request), correlation
            )
        except Exception as error:  # noqa: BLE001 - the command edge
            frames = encode(_failure(session, request, error), correlation)
        finally:
            session.num_requests -= 1
            session.request_bytes -= num_bytes
            self._reply(session, correlation, frames)

    def _reply(self, session: Session, correlation: int, frames: tuple[bytes, bytes]) -> None:
        if correlation != NOTICE:
            session.reply(frames, self.config.max_outbox_bytes)

    def _refuse(
        self,
        transport: Transport,
        received: Received,
        error: WireError,
        correlation: int | None = None,
    ) -> None:
        """An error to somebody who may have no session; lost if he does not listen."""
        reply = wire.Error(code=error.code, message=error.message, detail=error.detail)
        to = error.correlation if correlation is None else correlation
        transport.send(received.route, encode(reply, to))

    def _count_bad_message(self, error: WireError, received: Received) -> None:
        self._num_bad_messages += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._bad_message_logged_s >= _BAD_MESSAGE_LOG_S:
            self._bad_message_logged_s = now_s
            _log.warning(
                "bad message",
                client=received.address,
                error=error.message,
                total=self._num_bad_messages,
            )

    # --- sessions that come to an end -----------------------------------------------------------

    def _on_blocked(self, session: Session) -> None:
        if not self._blocked:
            asyncio.get_running_loop().call_later(_RETRY_S, self._retry)
        self._blocked.add(session)

    def _retry(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for session in blocked:
            session.flush()
            if session.open and not session.blocked:
                self._commands.following.pump_session(session)

    def _on_lost(self, session: Session, reason: str) -> None:
        # Not now: the caller may be iterating over what this changes.
        asyncio.get_running_loop().call_soon(self._end, session, self.config.grace_s)

    def end(self, session: Session) -> None:
        """Gives a client up, as if it were lost."""
        self._end(session, self.config.grace_s)

    def _end(self, session: Session, grace_s: float) -> None:
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
            session.close()
            self._commands.gone(session, grace_s)

    async def _watch(self) -> None:
        """Finds clients that are gone: by asking those that are silent, then by their silence."""
        loop = asyncio.get_running_loop()
        sweep_s = loop.time()
        while True:
            await asyncio.sleep(self.config.heartbeat_s)
            for session in list(self._sessions.values()):
                silent_s = loop.time() - session.last_seen_s
                if silent_s > self.config.timeout_s:
                    _log.info("client silent", client=session.peer.address, silent_s=silent_s)
                    # It may only have slept, and then has to know that it must come back.
                    session.notice(wire.Goodbye(reason=f"nothing was heard for {silent_s:.1f} s"))
                    self._end(session, self.config.grace_s)
                elif silent_s > self.config.heartbeat_s:
                    session.notice(wire.Heartbeat())
            if loop.time() >= sweep_s:
                self._commands.uploads.expire(self.config.upload_expiry_s)
                sweep_s = loop.time() + _SWEEP_S


def _failure(session: Session, request: wire.AnyRequest, error: Exception) -> wire.Error:
    """The client gets a code, the log the rest."""
    if isinstance(error, PieError):
        return wire.Error(code=error.code, message=error.message)
    name = request.__struct_config__.tag
    _log.error("command failed", command=name, client=session.peer.address, exc_info=True)
    text = f"{name} failed inside the daemon; its log has the details"
    return wire.Error(code="internal", message=text)
