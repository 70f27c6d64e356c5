"""A generation's text on its way to the client, on the scheduler's and the program's thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from inferlet import _json
from pie_daemon.errors import PieError
from pie_daemon.host.mailbox import Mailbox
from pie_daemon.host.relay import Relay, delta
from pie_daemon.host.stop import Stopped
from pie_daemon.scheduler.request import CANCELLED, LENGTH, Chunk, Finish
from support.waiting import until


@dataclass
class Fake:
    """A scheduler with one request, a client that may lag behind, and a program's thread."""

    chunks: list[Chunk] = field(default_factory=list)
    finished: Finish | None = None
    error: PieError | None = None
    sent: list[str] = field(default_factory=list)
    lags: bool = False
    stalled: bool = False
    woken: int = 0
    blocked: threading.Event = field(default_factory=threading.Event)
    mailbox: Mailbox = field(default_factory=Mailbox)

    def __post_init__(self) -> None:
        ports = SimpleNamespace(offer=self._offer, emit=self._emit)
        host: Any = SimpleNamespace(mailbox=self.mailbox, ports=ports)
        scheduler: Any = self
        self.relay = Relay(host, scheduler)
        self.relay.request = 7

    def ready(self, request: int) -> bool:
        return bool(self.chunks or self.finished or self.error)

    def take(self, request: int) -> Chunk | None:
        assert 7 == request
        if self.error is not None:
            raise self.error
        if not self.chunks:
            return None
        chunk = self.chunks.pop(0)
        if chunk.last:
            self.finished = LENGTH
        return chunk

    def finish(self, request: int) -> Finish | None:
        return self.finished

    def say(self, *texts: str, last: bool = False) -> None:
        """The scheduler's thread has a chunk for each; the last one ends the generation."""
        for number, text in enumerate(texts, 1):
            is_last = last and number == len(texts)
            self.chunks.append(Chunk([ord(char) for char in text], text, last=is_last))
            self.tell()

    def tell(self) -> None:
        """What the scheduler does, all on this thread."""
        for wake in [wake for later in [self.relay.notify()] if later for wake in later()]:
            wake()

    def catch_up(self) -> None:
        """The client does."""
        self.lags = False
        self.mailbox.wake()

    def _offer(self, data: bytes) -> list[Callable[[], None]] | None:
        if self.lags:
            return None
        self._append(data)
        return [self._wake]

    def _emit(self, kind: str, data: bytes, name: str) -> None:
        self.blocked.set()
        if self.stalled:
            raise PieError("exhausted", "the client is too slow")
        self.mailbox.wait(lambda: not self.lags)
        self._append(data)

    def _append(self, data: bytes) -> None:
        event = json.loads(data)
        assert "delta" == event["type"]
        self.sent.append(event["text"])

    def _wake(self) -> None:
        self.woken += 1

    @contextmanager
    def running(self) -> Iterator[Callable[[], Any]]:
        """The program is in `relay`; what that came to."""
        ends: list[Any] = []

        def main() -> None:
            try:
                ends.append(self.relay.run())
            except BaseException as error:  # noqa: BLE001  # looked at by the test
                ends.append(error)

        def end() -> Any:
            thread.join(30)
            [one] = ends
            return one

        thread = threading.Thread(target=main)
        thread.start()
        try:
            yield end
        finally:
            self.mailbox.stop("cancelled", "the test is over")
            thread.join(30)

    @contextmanager
    def relaying(self) -> Iterator[Callable[[], Any]]:
        """The same, once it is the scheduler's thread that sends."""
        with self.running() as end:
            until(lambda: self.relay._open)
            yield end


@pytest.mark.parametrize(
    "text",
    ["plain", 'a "quote" and \\', "\n\r\t\b\f\0\x1f\x7f", "naïve 你好 👩‍👩‍👧", "\u2028\ufffd</p>"],
)
def test_an_event_is_what_the_sdk_sends(text: str) -> None:
    """Byte for byte."""
    assert _json.dumps_event("delta", {"text": text}).encode() == delta(text)


def test_text_is_sent_as_it_comes_and_returned_at_the_end() -> None:
    """In its order, without what is empty; the program has all of it as one chunk."""
    fake = Fake()
    with fake.relaying() as end:
        fake.say("a", "", "b")
        assert (["a", "b"], 2) == (fake.sent, fake.woken)
        assert fake.mailbox.num_pending == 0
        fake.say("c", last=True)
        assert Chunk([97, 98, 99], "abc") == end()
    assert ["a", "b", "c"] == fake.sent


def test_what_was_ready_before_is_sent_first() -> None:
    """The engine had begun long ago."""
    fake = Fake([Chunk([97], "a"), Chunk([98], "b", last=True)])
    with fake.running() as end:
        assert Chunk([97, 98], "ab") == end()
    assert ["a", "b"] == fake.sent


def test_a_program_that_does_not_relay_is_only_woken() -> None:
    """Its chunks are its own."""
    fake = Fake()
    fake.say("a")
    until(lambda: fake.mailbox.num_pending == 1)
    assert ([], 1) == (fake.sent, len(fake.chunks))


@pytest.mark.parametrize("finish", [LENGTH, CANCELLED])
def test_a_generation_that_is_over_gives_nothing(finish: Finish) -> None:
    """At once, and every time it is asked."""
    fake = Fake(finished=finish)
    assert [Chunk([], "")] * 2 == [fake.relay.run(), fake.relay.run()]
    assert [] == fake.sent


def test_a_client_that_lags_behind_makes_the_program_wait() -> None:
    """The scheduler's thread goes on; nothing is lost, and nothing overtakes."""
    fake = Fake()
    with fake.relaying() as end:
        fake.say("a")
        fake.lags = True
        fake.say("b", "c", "d")
        assert fake.blocked.wait(30)
        assert ["a"] == fake.sent
        fake.catch_up()
        until(lambda: ["a", "b", "c", "d"] == fake.sent)
        fake.say("e", last=True)
        assert Chunk([97, 98, 99, 100, 101], "abcde") == end()
    assert ["a", "b", "c", "d", "e"] == fake.sent


def test_the_end_waits_for_the_client_as_well() -> None:
    """The program has its answer when all of it is sent."""
    fake = Fake()
    with fake.relaying() as end:
        fake.lags = True
        fake.say("a", last=True)
        assert fake.blocked.wait(30)
        assert [] == fake.sent
        fake.catch_up()
        assert Chunk([97], "a") == end()
    assert ["a"] == fake.sent


def test_after_a_client_that_was_too_slow_a_second_try_goes_on() -> None:
    """With what the first could not send, and everything is returned."""
    fake = Fake()
    with fake.relaying() as end:
        fake.say("a")
        fake.lags = fake.stalled = True
        fake.say("b", "c")
        error = end()
        assert isinstance(error, PieError)
        assert "exhausted" == error.code
        fake.lags = fake.stalled = False
        fake.say("d", last=True)
        assert Chunk([97, 98, 99, 100], "abcd") == fake.relay.run()
    assert ["a", "b", "c", "d"] == fake.sent


def test_the_error_of_a_generation_comes_after_its_text() -> None:
    """The program is told why; the client has what there was."""
    fake = Fake()
    with fake.relaying() as end:
        fake.say("a")
        fake.error = PieError("internal", "the backend died")
        fake.tell()
        assert "the backend died" in str(end())
    assert ["a"] == fake.sent


def test_what_is_left_to_send_when_a_relay_ends_is_not_sent() -> None:
    """The program was stopped between the two halves of being told."""
    fake = Fake()
    with fake.relaying() as end:
        fake.chunks.append(Chunk([97], "a", last=True))
        later = fake.relay.notify()
        assert later is not None
        fake.mailbox.stop("cancelled", "enough")
        assert isinstance(end(), Stopped)
        assert [] == list(later())
    assert [] == fake.sent


def test_a_program_that_is_stopped_sends_nothing_more() -> None:
    """Whatever the engine still draws for it."""
    fake = Fake()
    with fake.relaying() as end:
        fake.say("a")
        fake.mailbox.stop("cancelled", "enough")
        assert isinstance(end(), Stopped)
        fake.say("b", last=True)
    assert ["a"] == fake.sent
