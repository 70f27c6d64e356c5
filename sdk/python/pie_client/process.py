"""A program that runs in the daemon, seen from its client."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from pie_client import wire
from pie_client.errors import PieError, ProgramError
from pie_client.events import Event, Finished, Gap, from_wire

if TYPE_CHECKING:
    from pie_client.aio import AsyncClient

# What an event costs beyond its data, as the daemon counts it.
_EVENT_BYTES = 64


class AsyncProcess:
    """One instance. Made by `AsyncClient.launch` and `AsyncClient.attach`.

    Events wait here until somebody takes them; a client that takes them slowly slows its program.
    """

    def __init__(
        self, client: AsyncClient, id: str, program: str, digest: str, after: int = 0
    ) -> None:
        self.id = id
        self.program = program
        self.digest = digest
        self.stop_at_exit = False
        self._client = client
        self._received = after
        self._consumed = after
        self._acked = after
        self._unacked_bytes = 0
        # (number, bytes, event): here, and handed out without being consumed yet.
        self._buffer: deque[tuple[int, int, Event]] = deque()
        self._handed_out: deque[tuple[int, int]] = deque()
        self._partial = bytearray()
        self._outcome: wire.Outcome | None = None
        self._failure: PieError | None = None
        # Who iterates; a set, since the threads of the sync client change it, too.
        self.iterators: set[object] = set()
        self._waiters: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.program}>"

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops a program that this client launched; detaches from one that is to go on."""
        if not self.finished:
            with contextlib.suppress(PieError):
                await (self.terminate() if self.stop_at_exit else self.detach())

    @property
    def finished(self) -> bool:
        """The outcome is here, or will never come."""
        return self._outcome is not None or self._failure is not None

    @property
    def last_seq(self) -> int:
        """The last event taken; `attach(id, after=last_seq)` goes on behind it."""
        return self._consumed

    async def events(self) -> AsyncIterator[Event]:
        """Everything the program says, until it has finished; may be left and taken up again."""
        iterator = object()
        self.iterators.add(iterator)
        try:
            while await self._has_event():
                yield self._take()
        finally:
            self.iterators.discard(iterator)
            self._wake()

    async def next_batch(self, consumed: int) -> list[tuple[int, Event]]:
        """All events that are here with their numbers, at least one; empty after the last one.

        They count as consumed only when a later call says so: `consumed` is the last one that was.
        """
        self._consume(consumed)
        if not await self._has_event():
            return []
        batch = [(seq, event) for seq, _, event in self._buffer]
        self._handed_out.extend((seq, num_bytes) for seq, num_bytes, _ in self._buffer)
        self._buffer.clear()
        return batch

    async def outcome(self) -> wire.Outcome:
        """How it ended. Events are discarded while nobody iterates over them."""
        while True:
            if not self.iterators:
                self._handed_out.extend((seq, num_bytes) for seq, num_bytes, _ in self._buffer)
                self._buffer.clear()
                self._consume(self._received)
            elif self._received > self._acked:
                # Whoever iterates may be waiting for this very call: what he has not read yet
                # waits here, and must not hold up the program.
                self._acknowledge(self._received, at_once=True)
            if self._outcome is not None:
                return self._outcome
            if self._failure is not None:
                raise self._failure
            await self._changed()

    async def result(self) -> Any:
        """The program's result, parsed where it is JSON; ProgramError when it has none."""
        return parse_result(await self.outcome())

    async def send(self, message: object) -> None:
        """A message to the program: a string as it is, anything else as JSON."""
        text = message if isinstance(message, str) else msgspec.json.encode(message).decode()
        await self._client.request(wire.Message(instance=self.id, text=text), wire.Done)

    async def send_blob(self, name: str, data: bytes) -> None:
        """Bytes to the program, of any size up to the daemon's limit."""
        await self._client.upload_blob(self.id, name, data)

    async def close_input(self) -> None:
        """Tells the program that no more messages will come."""
        await self._client.request(wire.CloseInput(instance=self.id), wire.Done)

    async def terminate(self, reason: str = "") -> None:
        """Stops it; its outcome will be `cancelled`."""
        await self._client.terminate(self.id, reason)

    async def detach(self, consumed: int | None = None) -> None:
        """Leaves it running; `attach(id, after=last_seq)` comes back to it."""
        if consumed is not None:
            self._consume(consumed)
        self._client.flush_acks()
        if not self._client.follows(self):
            return
        await self._client.request(wire.Detach(instance=self.id), wire.Done)
        self._client.forget(self)
        self.fail(PieError("closed", f"this client has detached from {self.id}"))

    # --- called by the client -----------------------------------------------------------------

    @property
    def received(self) -> int:
        return self._received

    @property
    def settled(self) -> bool:
        """It has ended, and the daemon knows that all of it has arrived."""
        return self.finished and self._acked >= self._received

    def on_attached(self, reply: wire.Attached) -> None:
        """An instance whose last events were acknowledged by somebody sends no outcome again."""
        if reply.next_seq is None and reply.info.outcome is not None and not self.finished:
            self._push(reply.last_seq, 0, Finished(reply.last_seq, reply.info.outcome))

    def on_event(self, message: wire.Event) -> None:
        if message.seq <= self._received:
            return
        data = message.data
        if message.size is not None:
            if message.offset != len(self._partial):
                del self._partial[message.offset :]
            self._partial += data
            if len(self._partial) < message.size:
                return
            data = bytes(self._partial)
            self._partial.clear()
        if message.seq > self._received + 1:
            self._push(message.seq - 1, 0, Gap(self._received + 1, message.seq))
        event = from_wire(message.seq, message.kind, message.name, data)
        self._push(message.seq, len(data) + _EVENT_BYTES, event)

    def on_relink(self) -> None:
        """Half an event from the old connection is worth nothing."""
        self._partial.clear()

    def fail(self, error: PieError) -> None:
        if not self.finished:
            self._failure = error
        self._wake()

    # --- inside -------------------------------------------------------------------------------

    def _push(self, seq: int, num_bytes: int, event: Event) -> None:
        self._received = seq
        self._buffer.append((seq, num_bytes, event))
        if isinstance(event, Finished):
            self._outcome = event.outcome
        self._wake()

    async def _has_event(self) -> bool:
        """Waits for the next one; False after the last one."""
        while not self._buffer:
            if self._failure is not None:
                raise self._failure
            if self._outcome is not None:
                return False
            await self._changed()
        return True

    def _take(self) -> Event:
        seq, num_bytes, event = self._buffer.popleft()
        self._handed_out.append((seq, num_bytes))
        self._consume(seq)
        return event

    def _consume(self, upto: int) -> None:
        while self._handed_out and self._handed_out[0][0] <= upto:
            self._consumed, num_bytes = self._handed_out.popleft()
            self._unacked_bytes += num_bytes
        if self._consumed > self._acked:
            is_last = self._outcome is not None and self._consumed == self._received
            enough = self._unacked_bytes >= self._client.ack_bytes
            self._acknowledge(self._consumed, at_once=is_last or enough)

    def _acknowledge(self, upto: int, at_once: bool) -> None:
        self._acked = upto
        if self._client.acknowledge(self, upto, at_once=at_once):
            self._unacked_bytes = 0

    async def _changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def parse_result(outcome: wire.Outcome) -> Any:
    """The result of an outcome, parsed where it is JSON; ProgramError when it has none."""
    if outcome.status != "ok":
        raise ProgramError(
            outcome.status,
            outcome.code or "internal",
            outcome.message or f"the program ended as {outcome.status}",
        )
    if outcome.result is None:
        return None
    try:
        return msgspec.json.decode(outcome.result)
    except msgspec.DecodeError:
        return outcome.result
