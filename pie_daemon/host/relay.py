"""The text of a generation on its way to the client, without its program.

A program that sends on every chunk as it comes would be woken for each of them. While a relay is
open a thread of the scheduler does that in its place, and wakes the program only at the end, or
when it would have to wait: a client that lags behind is waited for on the program's own thread.
"""

from __future__ import annotations

import threading
from json.encoder import encode_basestring
from typing import TYPE_CHECKING

from pie_daemon.errors import PieError
from pie_daemon.host.context import HostContext
from pie_daemon.scheduler.request import Chunk
from pie_daemon.scheduler.telling import Later, Wake

if TYPE_CHECKING:
    from pie_daemon.scheduler.replicas.front import Replicas
    from pie_daemon.scheduler.service import Scheduler


class Relay:
    """Of one generation. `run` belongs to the program's thread, all else to any."""

    def __init__(self, host: HostContext, scheduler: Scheduler | Replicas) -> None:
        self.request = -1
        """That `notify` is about; known before `run`."""
        self._scheduler = scheduler
        self._mailbox = host.mailbox
        self._ports = host.ports
        self._lock = threading.Lock()
        self._open = False
        self._ended = False
        self._unsent = b""
        self._passed_on: list[Chunk] = []

    def notify(self) -> Later | None:
        """There is something to take."""
        if self._open:
            return self._send
        self._mailbox.wake()
        return None

    def _send(self) -> list[Wake]:
        """What it returns wakes those who read it."""
        with self._lock:
            wakes: list[Wake] = []
            if self._open:
                try:
                    wakes = self._pass_on()
                except PieError:
                    self._open = False  # its program asks as well, and is told
            if self._open:
                return wakes
        self._mailbox.wake()
        return wakes

    def run(self) -> Chunk:
        """Blocks until the generation has ended and all of its text is sent. Everything that was
        passed on and not returned yet, as one chunk.

        Raises:
            PieError: `exhausted`, when the client lags behind for too long; why the generation
                failed. Nothing is lost: the next call goes on.
        """
        try:
            while not self._ended or self._unsent:
                self._catch_up()
                self._mailbox.wait(lambda: not self._open or self._scheduler.ready(self.request))
        finally:
            self._close()
        chunks, self._passed_on = self._passed_on, []
        return _joined(chunks)

    def _close(self) -> None:
        with self._lock:
            self._open = False

    def _catch_up(self) -> None:
        """Sends what the client had no room for, blocking; then what came before it was open."""
        self._close()
        if self._unsent:
            self._ports.emit("message", self._unsent, "")
            self._unsent = b""
        with self._lock:
            self._open = not self._ended
            wakes = self._pass_on() if self._open else []
        for wake in wakes:
            wake()

    def _pass_on(self) -> list[Wake]:
        chunk = self._scheduler.take(self.request)
        if chunk is None:
            self._ended = self._scheduler.finish(self.request) is not None
        else:
            self._passed_on.append(chunk)
            self._ended = chunk.last
        self._open = not self._ended
        if chunk is None or not chunk.text:
            return []
        data = delta(chunk.text)
        wakes = self._ports.offer(data)
        if wakes is None:
            self._unsent, self._open = data, False
        return wakes or []


def delta(text: str) -> bytes:
    """The event of that name, byte for byte as the SDK's `session.send_event` has it."""
    return f'{{"type":"delta","text":{encode_basestring(text)}}}'.encode()


def _joined(chunks: list[Chunk]) -> Chunk:
    return Chunk(
        [token for chunk in chunks for token in chunk.tokens],
        "".join([chunk.text for chunk in chunks]),
        [one for chunk in chunks for one in chunk.logprobs],
        last=True,
    )
