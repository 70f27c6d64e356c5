"""The asyncio client of Pie."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, Unpack

import msgspec

from pie_client import wire
from pie_client.errors import LinkLost, NotRunning, PieError, VersionMismatch
from pie_client.paths import default_endpoint
from pie_client.process import AsyncProcess
from pie_client.upload import Source, open_source, send_chunks

if TYPE_CHECKING:
    from pie_client.link import Link

_R = TypeVar("_R", bound=wire.Reply)
Progress = Callable[[int, int], None]
"""Called with (bytes sent, bytes in all)."""

_REQUEST_TIMEOUT_S: Final = 30.0
# The answer to a commit comes after the program was compiled.
_INSTALL_TIMEOUT_S: Final = 600.0
_UPLOAD_ATTEMPTS: Final = 5
_FIRST_BACKOFF_S: Final = 0.05
_LAST_BACKOFF_S: Final = 1.0
# Acknowledgements of many events and processes travel together. They only let the daemon forget,
# and go out at once where it would have to wait for them.
_ACK_DELAY_S: Final = 0.5


class LaunchBudgets(TypedDict, total=False):
    """Ceilings of one launch."""

    max_tokens_total: int | None
    max_cpu_s: float | None
    deadline_s: float | None
    max_kv_pages: int | None


class AsyncClient:
    """A session with the daemon; use `connect`, and `async with` or `close`.

    When the connection is lost it comes back by itself, and processes go on where they were;
    requests whose answer was lost on the way and that may have been done raise `interrupted`.
    """

    def __init__(self, endpoint: str, name: str, timeout_s: float, reconnect_s: float) -> None:
        self.endpoint = endpoint
        self._name = name
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._failure: PieError | None = None
        self._closed = False
        self._processes: dict[str, AsyncProcess] = {}
        self._reconnecting: asyncio.Task[None] | None = None
        self._unacked: dict[str, int] = {}
        self._ack_timer: asyncio.TimerHandle | None = None
        self.ack_bytes = 0

    @classmethod
    async def connect(
        cls,
        endpoint: str | None = None,
        *,
        timeout_s: float = 5.0,
        wait: bool = False,
        reconnect_s: float = 10.0,
        name: str = "pie_client",
    ) -> AsyncClient:
        """Connects to the daemon; `endpoint` None: that of this user's own daemon.

        NotRunning when nothing listens there (with `wait`: not within `timeout_s`). A connection
        that is lost later is tried again for `reconnect_s`.
        """
        client = cls(endpoint or default_endpoint(), name, timeout_s, reconnect_s)
        try:
            await client._establish(timeout_s if wait else 0.0)
        except BaseException:
            await client._drop_link()
            raise
        return client

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Says goodbye. Programs that this client launched and did not detach from are stopped."""
        if self._closed:
            return
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        if self._link is not None:
            self.flush_acks()
            with contextlib.suppress(PieError, LinkLost):
                await self._link.request(wire.Bye(), wire.Done, 1.0)
        self._give_up(PieError("closed", "the client was closed"))
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        await self._drop_link()

    # --- the daemon ---------------------------------------------------------------------------

    @property
    def server(self) -> str:
        """What the daemon calls itself, with its version."""
        return self._link.welcome.server if self._link is not None else ""

    async def ping(self) -> float:
        """The seconds that a round trip takes."""
        start_s = time.perf_counter()
        await self.request(wire.Ping(), wire.Pong, idempotent=True)
        return time.perf_counter() - start_s

    async def status(self) -> wire.Status:
        return await self.request(wire.GetStatus(), wire.Status, idempotent=True)

    async def instances(self) -> list[wire.InstanceInfo]:
        """Those that run and those that have ended lately."""
        reply = await self.request(wire.ListInstances(), wire.InstanceList, idempotent=True)
        return reply.items

    async def programs(self) -> list[wire.ProgramInfo]:
        reply = await self.request(wire.ListPrograms(), wire.ProgramList, idempotent=True)
        return reply.items

    async def upload(
        self, source: Path | str | bytes, name: str | None = None, progress: Progress | None = None
    ) -> wire.ProgramInfo:
        """Installs a component into this user's namespace; resumes after a lost connection.

        `name` overrides that of the manifest; without either it is the stem of the file.
        """
        with open_source(source) as opened:
            begin = wire.UploadBegin(
                sha256=opened.sha256, size=opened.size, name=name, stem=opened.stem
            )
            reply = await self._upload(begin, opened, progress)
        if reply.program is None:
            raise PieError("internal", "the daemon took the upload for a blob")
        return reply.program

    # --- programs that run --------------------------------------------------------------------

    async def launch(
        self,
        program: str,
        input: object = None,
        *,
        detached: bool = False,
        **budgets: Unpack[LaunchBudgets],
    ) -> AsyncProcess:
        """Starts a program. `input`: JSON text as it is, anything else is made JSON.

        Not `detached`: it is stopped when this client goes away. Budgets: `max_tokens_total`,
        `max_cpu_s`, `deadline_s`, `max_kv_pages`; without one, what the daemon grants.
        """
        text = input if isinstance(input, str) else to_json({} if input is None else input)
        request = wire.Launch(
            program=program, input=text, budgets=wire.Budgets(**budgets), detached=detached
        )
        started: list[AsyncProcess] = []

        def on_reply(reply: wire.Launched) -> None:
            process = AsyncProcess(self, reply.instance, reply.program, reply.digest)
            process.stop_at_exit = not detached
            self._adopt(process)
            started.append(process)

        await self.request(request, wire.Launched, on_reply=on_reply)
        return started[0]

    async def attach(self, id: str, after: int = 0) -> AsyncProcess:
        """Follows an instance, from the first event after number `after` that is still kept.

        Another process of this client for the same instance ends with that.
        """
        started: list[AsyncProcess] = []

        def on_reply(reply: wire.Attached) -> None:
            info = reply.info
            process = AsyncProcess(self, info.id, info.program, info.digest, after)
            self._adopt(process)
            process.on_attached(reply)
            started.append(process)

        request = wire.Attach(instance=id, after=after)
        await self.request(request, wire.Attached, on_reply=on_reply)
        return started[0]

    async def terminate(self, id: str, reason: str = "") -> None:
        """Stops an instance; it ends within a second."""
        await self.request(wire.Terminate(instance=id, reason=reason), wire.Done)

    # --- called by processes ------------------------------------------------------------------

    async def request(
        self,
        message: wire.Request,
        expected: type[_R],
        *,
        timeout_s: float = _REQUEST_TIMEOUT_S,
        on_reply: Callable[[_R], None] | None = None,
        idempotent: bool = False,
    ) -> _R:
        """One request and its answer, over the connection of the moment."""
        while True:
            link = await self._current_link()
            try:
                return await link.request(message, expected, timeout_s, on_reply)
            except LinkLost as error:
                if not idempotent or self._closed:
                    raise PieError(
                        "interrupted",
                        f"the connection to {self.endpoint} was lost before the answer ({error}); "
                        "the request may have been done",
                    ) from None
                await asyncio.sleep(0)

    async def upload_blob(self, instance: str, name: str, data: bytes) -> None:
        with open_source(data) as opened:
            begin = wire.UploadBegin(
                sha256=opened.sha256, size=opened.size, name=name or None, instance=instance
            )
            await self._upload(begin, opened, None)

    def acknowledge(self, process: AsyncProcess, upto: int, *, at_once: bool) -> bool:
        """Notes what to acknowledge; True when it was sent now."""
        if not self.follows(process):
            return False
        self._unacked[process.id] = upto
        if at_once and self.flush_acks():
            return True
        self._schedule_acks()
        return False

    def flush_acks(self) -> bool:
        """Sends what is due; False when the connection takes nothing now."""
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if self._link is None:
            # The next attach will tell what has arrived.
            return False
        for instance, upto in list(self._unacked.items()):
            if not self._link.notify(wire.Ack(instance=instance, upto=upto)):
                self._schedule_acks()
                return False
            del self._unacked[instance]
            process = self._processes.get(instance)
            if process is not None and process.settled:
                self.forget(process)
        return True

    def follows(self, process: AsyncProcess) -> bool:
        """Whether events of it may still come."""
        return self._processes.get(process.id) is process

    def forget(self, process: AsyncProcess) -> None:
        if self._processes.get(process.id) is process:
            del self._processes[process.id]
            self._unacked.pop(process.id, None)

    def _adopt(self, process: AsyncProcess) -> None:
        if (earlier := self._processes.get(process.id)) is not None:
            self.forget(earlier)
            earlier.fail(PieError("closed", f"{process.id} was attached to anew"))
        self._processes[process.id] = process

    def _schedule_acks(self) -> None:
        if self._ack_timer is None:
            loop = asyncio.get_running_loop()
            self._ack_timer = loop.call_later(_ACK_DELAY_S, self.flush_acks)

    # --- the connection -----------------------------------------------------------------------

    async def _current_link(self) -> Link:
        while self._link is None:
            if self._failure is not None:
                raise self._failure
            await self._linked.wait()
        return self._link

    async def _establish(self, patience_s: float) -> None:
        """A link with a hello answered; tried again while nobody is there and patience lasts."""
        # ZeroMQ is loaded when it is needed: a command that only shows its help does not.
        from pie_client.link import Link

        deadline_s = time.monotonic() + patience_s
        backoff_s = _FIRST_BACKOFF_S
        while True:
            link = Link(self.endpoint, self._on_notice, self._on_lost)
            try:
                await link.open(self._name, self._timeout_s)
            except BaseException as error:
                await link.close()
                # Also retried: a daemon that stops still answers for a moment.
                if not isinstance(error, NotRunning) or time.monotonic() >= deadline_s:
                    raise
            else:
                self._link = link
                # Early enough that the daemon's window never runs dry.
                self.ack_bytes = link.welcome.event_window_bytes // 4
                self._linked.set()
                return
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)

    async def _reconnect(self, reason: str) -> None:
        await self._drop_link()
        try:
            await self._establish(self._reconnect_s)
        except (NotRunning, VersionMismatch) as error:
            if isinstance(error, NotRunning):
                error = NotRunning(self.endpoint, f"the connection was lost: {reason}")
            self._give_up(error)
        except PieError as error:
            self._give_up(error)
        else:
            for process in list(self._processes.values()):
                await self._attach_again(process)

    async def _attach_again(self, process: AsyncProcess) -> None:
        process.on_relink()
        request = wire.Attach(instance=process.id, after=process.received)
        try:
            await self.request(
                request, wire.Attached, on_reply=process.on_attached, idempotent=True
            )
        except PieError as error:
            self.forget(process)
            text = f"the daemon does not know {process.id} any more ({error})"
            process.fail(PieError("interrupted", text))

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        self._linked.clear()
        if link is not None:
            await link.close()

    def _on_notice(self, notice: wire.AnyReply) -> None:
        if isinstance(notice, wire.Events):
            for event in notice.items:
                self._on_event(event)
        elif isinstance(notice, wire.Event):
            self._on_event(notice)

    def _on_event(self, event: wire.Event) -> None:
        if process := self._processes.get(event.instance):
            process.on_event(event)

    def _on_lost(self, reason: str) -> None:
        if self._closed or self._link is None:
            return
        loop = asyncio.get_running_loop()
        self._reconnecting = loop.create_task(self._reconnect(reason), name="pie_client.reconnect")

    def _give_up(self, error: PieError) -> None:
        self._failure = error
        self._linked.set()
        for process in list(self._processes.values()):
            process.fail(error)
        self._processes.clear()
        self._unacked.clear()

    async def _upload(
        self, begin: wire.UploadBegin, source: Source, progress: Progress | None
    ) -> wire.Uploaded:
        for attempt in range(_UPLOAD_ATTEMPTS):
            try:
                ready = await self.request(begin, wire.UploadReady, idempotent=True)
                link = await self._current_link()
                await send_chunks(self, link.welcome, ready, source, progress)
                commit = wire.UploadCommit(upload=ready.upload)
                return await self.request(commit, wire.Uploaded, timeout_s=_INSTALL_TIMEOUT_S)
            except PieError as error:
                # `closed`: the daemon stops; the next one goes on from what this one has.
                if error.code not in ("interrupted", "closed") or isinstance(error, NotRunning):
                    raise
                if attempt == _UPLOAD_ATTEMPTS - 1 or self._closed:
                    raise
                await asyncio.sleep(_FIRST_BACKOFF_S * 2**attempt)
        raise AssertionError("unreachable")


def to_json(value: Any) -> str:
    """JSON text of a plain value."""
    return msgspec.json.encode(value).decode()
