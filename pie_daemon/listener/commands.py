"""What each request does: message type -> handler -> the one reply."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from pie_client import wire
from pie_daemon import __version__
from pie_daemon.errors import PieError
from pie_daemon.listener.config import ListenerConfig
from pie_daemon.listener.following import Following
from pie_daemon.listener.seams import Instance, Services
from pie_daemon.listener.session import Session
from pie_daemon.listener.ties import Ties
from pie_daemon.listener.uploads import Upload, Uploads

_log = structlog.get_logger()

Handler = Callable[[Session, Any], Awaitable[wire.Reply]]
QuickHandler = Callable[[Session, Any], wire.Reply]

_T = TypeVar("_T")

FEATURES: Final = ["blobs", "resume"]
# What an envelope around a chunk can take at most.
_ENVELOPE_BYTES: Final = 4096


class Commands:
    """The handlers and what they share. Those that wait for something run as tasks, and leave what
    blocks to a thread; the others answer where they are called."""

    def __init__(self, config: ListenerConfig, services: Services, uploads_dir: Path) -> None:
        self.config = config
        self.draining = False
        self.following = Following()
        self.ties = Ties(self.following.followers, self._cancel)
        self._services = services
        self._files = ThreadPoolExecutor(1, "pie-listener-files")
        self._installs = ThreadPoolExecutor(2, "pie-listener-install")
        self.uploads = Uploads(uploads_dir, self._files)
        self._started_at = time.time()
        # Filled in by the server, which alone knows them.
        self.count_sessions: Callable[[], int] = lambda: 0
        self.endpoints: list[str] = []
        self.end_session: Callable[[Session], None] = lambda session: None
        self.at_once: dict[type[wire.Request], QuickHandler] = {
            wire.Hello: self.hello,
            wire.Ping: self.ping,
            wire.GetStatus: self.status,
            wire.Launch: self.launch,
            wire.ListInstances: self.list_instances,
            wire.ListPrograms: self.list_programs,
            wire.Attach: self.attach,
            wire.Detach: self.detach,
            wire.Ack: self.ack,
            wire.Terminate: self.terminate,
            wire.Message: self.message,
            wire.CloseInput: self.close_input,
            wire.Bye: self.bye,
        }
        self.later: dict[type[wire.Request], Handler] = {
            wire.UploadBegin: self.upload_begin,
            wire.UploadChunk: self.upload_chunk,
            wire.UploadCommit: self.upload_commit,
            wire.UploadAbort: self.upload_abort,
        }

    def close(self) -> None:
        self.ties.close()
        self._files.shutdown(wait=False, cancel_futures=True)
        self._installs.shutdown(wait=False, cancel_futures=True)

    def gone(self, session: Session, grace_s: float) -> None:
        """What a client leaves behind when it goes."""
        self.following.forget(session)
        self.ties.gone(session, grace_s)

    # --- the connection -----------------------------------------------------------------------

    def hello(self, session: Session, request: wire.Hello) -> wire.Welcome:
        config = self.config
        limit_bytes = min(request.max_message_bytes, config.max_message_bytes)
        session.events_together = wire.EVENTS_TOGETHER in request.features
        session.chunk_bytes = max(1, min(config.chunk_bytes, limit_bytes - _ENVELOPE_BYTES))
        return wire.Welcome(
            version=wire.PROTOCOL_VERSION,
            server=f"pie {__version__}",
            features=FEATURES,
            max_message_bytes=config.max_message_bytes,
            heartbeat_s=config.heartbeat_s,
            timeout_s=config.timeout_s,
            chunk_bytes=session.chunk_bytes,
            credit=config.upload_credit,
            event_window_bytes=config.event_window_bytes,
        )

    def ping(self, session: Session, request: wire.Ping) -> wire.Pong:
        return wire.Pong()

    def status(self, session: Session, request: wire.GetStatus) -> wire.Status:
        instances = self._services.supervisor.instances()
        return wire.Status(
            server=f"pie {__version__}",
            pid=os.getpid(),
            started_at=self._started_at,
            endpoints=self.endpoints,
            sessions=self.count_sessions(),
            instances=sum(info.state != "finished" for info in instances),
            programs=len(self._services.programs.programs(None)),
            detail=dict(self._services.detail()),
        )

    def bye(self, session: Session, request: wire.Bye) -> wire.Done:
        # In the next turn of the loop: after the answer.
        asyncio.get_running_loop().call_soon(self.end_session, session)
        return wire.Done()

    # --- programs -----------------------------------------------------------------------------

    async def upload_begin(self, session: Session, request: wire.UploadBegin) -> wire.UploadReady:
        self._refuse_when_draining()
        if request.instance is not None:
            self._instance(session, request.instance)
        limit_bytes = (
            self.config.max_blob_bytes if request.instance else self._services.max_program_bytes()
        )
        return await self.uploads.begin(session.peer.username, request, self.config, limit_bytes)

    async def upload_chunk(
        self, session: Session, request: wire.UploadChunk
    ) -> wire.UploadProgress:
        offset = await self.uploads.chunk(session.peer.username, request, session.chunk_bytes)
        return wire.UploadProgress(offset=offset)

    async def upload_commit(self, session: Session, request: wire.UploadCommit) -> wire.Uploaded:
        finished = self.uploads.finished(session.peer.username, request.upload)
        async with finished as (upload, file):
            if upload.request.instance is None:
                return await self._install(session, upload, file)
            return await self._deliver_blob(session, upload, file)

    async def upload_abort(self, session: Session, request: wire.UploadAbort) -> wire.Done:
        await self.uploads.abort(session.peer.username, request.upload)
        return wire.Done()

    def list_programs(self, session: Session, request: wire.ListPrograms) -> wire.ProgramList:
        username = None if session.peer.operator else session.peer.username
        programs = self._services.programs.programs(username)
        return wire.ProgramList(items=[_convert(info, wire.ProgramInfo) for info in programs])

    async def _install(self, session: Session, upload: Upload, file: Path) -> wire.Uploaded:
        program = await asyncio.get_running_loop().run_in_executor(
            self._installs,
            self._services.programs.install,
            file,
            session.peer.username,
            upload.request.name,
        )
        return wire.Uploaded(program=self._program_info(session, program.name))

    def _program_info(self, session: Session, name: str) -> wire.ProgramInfo:
        username = session.peer.username
        for info in self._services.programs.programs(username):
            if info.name == name and info.namespace == username:
                return _convert(info, wire.ProgramInfo)
        raise PieError("not-found", f"program {name} was removed while it was installed")

    async def _deliver_blob(self, session: Session, upload: Upload, file: Path) -> wire.Uploaded:
        instance = self._instance(session, upload.request.instance or "")
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._files, file.read_bytes)
        instance.deliver_blob(upload.request.name or "", data)
        return wire.Uploaded()

    # --- instances ----------------------------------------------------------------------------

    def launch(self, session: Session, request: wire.Launch) -> wire.Launched:
        self._refuse_when_draining()
        instance = self._services.supervisor.launch(
            request.program,
            request.input,
            session.peer.username,
            self._services.make_budgets(request.budgets),
        )
        # No await from here to the reply: the answer goes out before the first event.
        self._follow(session, instance, after=0)
        if not request.detached:
            self.ties.tie(instance.id, session)
        return wire.Launched(instance=instance.id, program=instance.program, digest=instance.digest)

    def list_instances(self, session: Session, request: wire.ListInstances) -> wire.InstanceList:
        infos: Sequence[Any] = self._services.supervisor.instances()
        peer = session.peer
        visible = [info for info in infos if peer.operator or info.username == peer.username]
        return wire.InstanceList(items=[_convert(info, wire.InstanceInfo) for info in visible])

    def attach(self, session: Session, request: wire.Attach) -> wire.Attached:
        instance = self._instance(session, request.instance)
        last_seq = instance.events.last_seq
        if request.after > last_seq:
            raise PieError(
                "invalid-argument", f"event {request.after} does not exist; the last is {last_seq}"
            )
        kept = instance.events.read(request.after, 1)
        self._follow(session, instance, request.after)
        self.ties.attached(instance.id, session)
        return wire.Attached(
            info=_convert(instance.info(), wire.InstanceInfo),
            last_seq=last_seq,
            next_seq=kept[0].seq if kept else None,
        )

    def detach(self, session: Session, request: wire.Detach) -> wire.Done:
        self.following.detach(session, request.instance)
        self.ties.detached(request.instance, session)
        return wire.Done()

    def ack(self, session: Session, request: wire.Ack) -> wire.Done:
        if self.following.ack(session, request.instance, request.upto):
            self.ties.untie(request.instance)
        return wire.Done()

    def terminate(self, session: Session, request: wire.Terminate) -> wire.Done:
        instance = self._instance(session, request.instance)
        reason = request.reason or f"stopped by {session.peer.username}"
        self._services.supervisor.terminate(instance.id, reason)
        return wire.Done()

    def message(self, session: Session, request: wire.Message) -> wire.Done:
        self._instance(session, request.instance).deliver(request.text)
        return wire.Done()

    def close_input(self, session: Session, request: wire.CloseInput) -> wire.Done:
        self._instance(session, request.instance).close_input()
        return wire.Done()

    def _instance(self, session: Session, instance_id: str) -> Instance:
        """What belongs to others does not exist for this client."""
        instance = self._services.supervisor.get(instance_id)
        if not session.peer.operator and instance.username != session.peer.username:
            raise PieError("not-found", f"no instance {instance_id}")
        return instance

    def _follow(self, session: Session, instance: Instance, after: int) -> None:
        self.following.attach(session, instance, after, self.config.event_window_bytes)

    def _refuse_when_draining(self) -> None:
        if self.draining:
            raise PieError("closed", "the daemon is stopping and takes nothing new")

    def _cancel(self, instance_id: str) -> None:
        with contextlib.suppress(PieError):  # not-found: it ended long ago
            if not self._services.supervisor.get(instance_id).done:
                _log.info("cancelling an instance whose client is gone", instance=instance_id)
                self._services.supervisor.terminate(instance_id, "its client is gone")


def _convert(value: Any, type_: type[_T]) -> _T:
    """Between the runtime's structs and those of the wire, by the names of their fields."""
    return msgspec.convert(value, type_, from_attributes=True)
