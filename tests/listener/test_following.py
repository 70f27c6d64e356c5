"""Events on their way to clients: windows, acknowledgement, pieces, replay."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pie_client import wire
from pie_client.codec import NOTICE, encode
from pie_daemon.listener.config import ListenerConfig
from support.fake_runtime import FakeInstance, until
from support.listening import Listening, listening
from support.raw_client import RawClient, raw_client

WINDOW = 16 * 1024
CONFIG = ListenerConfig(event_window_bytes=WINDOW, chunk_bytes=4096)


def flood(instance: FakeInstance) -> None:
    """Sends without end, as fast as its client takes it."""
    number = 0
    while not instance.stopped.is_set():
        instance.send(f"{number:1000}", limit_bytes=64 * 1024)
        number += 1


def count(instance: FakeInstance) -> None:
    """Sends ten numbers."""
    for number in range(10):
        instance.send(str(number))
    instance.finish(wire.Outcome(status="ok", result="10"))


@pytest.fixture
async def daemon() -> AsyncIterator[Listening]:
    async with listening(CONFIG, flood=flood, count=count) as running:
        yield running


@pytest.fixture
async def client(daemon: Listening) -> AsyncIterator[RawClient]:
    async with raw_client(daemon.ipc) as connected:
        yield connected


async def launch(daemon: Listening, client: RawClient, program: str) -> FakeInstance:
    launched = await client.ask(wire.Launch(program=program), wire.Launched)
    return daemon.supervisor.all[launched.instance]


async def ack(client: RawClient, instance: FakeInstance, upto: int) -> None:
    await client.ask(wire.Ack(instance=instance.id, upto=upto), wire.Done)


async def test_the_answer_comes_before_the_first_event(
    daemon: Listening, client: RawClient
) -> None:
    """Launched is the first message, the events follow in order."""
    number = await client.send(wire.Launch(program="count"))
    correlation, reply = await client.receive()
    assert correlation == number
    assert isinstance(reply, wire.Launched)
    events = [await client.event() for _ in range(11)]
    assert [event.seq for event in events] == list(range(1, 12))
    assert [event.kind for event in events] == ["message"] * 10 + ["outcome"]


async def test_a_slow_client_slows_its_program_only(daemon: Listening, client: RawClient) -> None:
    """Unacknowledged, the window fills, then the log; then the program waits, and no other."""
    instance = await launch(daemon, client, "flood")
    await until(lambda: instance.events.unacked_bytes >= 64 * 1024)
    events = [await client.event()]
    while sum(len(event.data) + 64 for event in events) < WINDOW:
        events.append(await client.event())
    # Nothing is on its way beyond the window: the next answer comes without an event before it.
    await client.ask(wire.Ping(), wire.Pong)
    assert client.notices == []
    assert instance.events.peak_bytes <= 66 * 1024
    async with raw_client(daemon.ipc) as other:
        neighbour = await launch(daemon, other, "count")
        assert [(await other.event()).seq for _ in range(11)] == list(range(1, 12))
        assert neighbour.done
    last = events[-1].seq
    await client.send(wire.Ack(instance=instance.id, upto=last), NOTICE)
    assert (await client.event()).seq == last + 1


async def test_a_client_that_does_not_read_costs_no_memory(daemon: Listening) -> None:
    """A stopped client's events stay in the log; when it reads again nothing is missing."""
    async with raw_client(daemon.ipc, receive_hwm=1) as stopped:
        instance = await launch(daemon, stopped, "flood")
        await until(lambda: instance.events.unacked_bytes >= 64 * 1024)
        assert instance.events.peak_bytes <= 66 * 1024
        seen = 0
        while seen < 200:
            event = await stopped.event()
            assert event.seq == seen + 1
            seen = event.seq
            await stopped.send(wire.Ack(instance=instance.id, upto=seen), NOTICE)


async def test_detach_and_attach_replay_from_a_number(daemon: Listening, client: RawClient) -> None:
    """What was not acknowledged comes again after an attach, exactly from there."""
    instance = await launch(daemon, client, "count")
    for _ in range(11):
        await client.event()
    await ack(client, instance, 4)
    await client.ask(wire.Detach(instance=instance.id), wire.Done)
    async with raw_client(daemon.ipc) as other:
        attached = await other.ask(wire.Attach(instance=instance.id, after=6), wire.Attached)
        assert (attached.last_seq, attached.next_seq) == (11, 7)
        assert attached.info.state == "finished"
        assert [(await other.event()).seq for _ in range(5)] == [7, 8, 9, 10, 11]
        await ack(other, instance, 11)
    assert instance.events.unacked_bytes == 0
    attached = await client.ask(wire.Attach(instance=instance.id), wire.Attached)
    assert attached.next_seq is None
    assert attached.info.outcome is not None


async def test_the_slowest_follower_decides_what_is_kept(
    daemon: Listening, client: RawClient
) -> None:
    """With two followers an event is kept until both have it, or one has left."""
    instance = await launch(daemon, client, "count")
    for _ in range(11):
        await client.event()
    async with raw_client(daemon.ipc) as other:
        await other.ask(wire.Attach(instance=instance.id, after=2), wire.Attached)
        assert (await other.event()).seq == 3
        await ack(client, instance, 9)
        assert [event.seq for event in instance.events.read(0, 1000)] == list(range(3, 12))
        await ack(other, instance, 5)
        assert instance.events.read(0, 1000)[0].seq == 6
        await other.ask(wire.Detach(instance=instance.id), wire.Done)
        assert instance.events.read(0, 1000)[0].seq == 10


async def test_acknowledging_the_outcome_ends_it(daemon: Listening, client: RawClient) -> None:
    """After the outcome nothing of the instance is left in the listener."""
    instance = await launch(daemon, client, "count")
    for _ in range(11):
        await client.event()
    await ack(client, instance, 11)
    assert instance.events.num_callbacks == 0
    error = await client.ask(wire.Ack(instance=instance.id, upto=11), wire.Error)
    assert error.code == "not-found"


async def test_wrong_numbers_are_refused(daemon: Listening, client: RawClient) -> None:
    """Nobody acknowledges what was not sent, or attaches behind the end."""
    instance = await launch(daemon, client, "wait")
    error = await client.ask(wire.Ack(instance=instance.id, upto=1), wire.Error)
    assert error.code == "invalid-argument"
    error = await client.ask(wire.Attach(instance=instance.id, after=1), wire.Error)
    assert error.code == "invalid-argument"
    error = await client.ask(wire.Detach(instance="nobody"), wire.Error)
    assert error.code == "not-found"


async def test_a_large_event_comes_in_pieces(daemon: Listening, client: RawClient) -> None:
    """An event over the chunk size, and over the window, arrives whole."""
    instance = await launch(daemon, client, "wait")
    data = bytes(range(256)) * 200
    instance.events.append("blob", data, "image")
    pieces = [await client.event()]
    while pieces[-1].offset + len(pieces[-1].data) < len(data):
        pieces.append(await client.event())
    assert b"".join(piece.data for piece in pieces) == data
    assert {(piece.seq, piece.name, piece.size) for piece in pieces} == {(1, "image", len(data))}
    assert max(len(piece.data) for piece in pieces) == 4096
    instance.events.append("message", b"")
    await client.ask(wire.Ping(), wire.Pong)
    assert client.notices == []
    await ack(client, instance, 1)
    assert (await client.event()).seq == 2


async def test_many_instances_of_one_client(daemon: Listening, client: RawClient) -> None:
    """A hundred programs at once: every event of each arrives once and in order."""
    for _ in range(100):
        await client.send(wire.Launch(program="count"))
    seen: dict[str, list[int]] = {}
    while sum(len(numbers) for numbers in seen.values()) < 1100:
        event = await client.event()
        seen.setdefault(event.instance, []).append(event.seq)
    assert all(numbers == list(range(1, 12)) for numbers in seen.values())
    assert len(seen) == 100


async def test_events_travel_together_to_a_client_that_takes_that(daemon: Listening) -> None:
    """What is there at one time comes in few messages, in the order in which it was said."""
    async with raw_client(daemon.ipc, hello=False) as client:
        hello = wire.Hello(versions=[wire.PROTOCOL_VERSION], features=[wire.EVENTS_TOGETHER])
        await client.ask(hello, wire.Welcome)
        await launch(daemon, client, "count")
        messages: list[list[wire.Event]] = []
        while sum(map(len, messages)) < 11:
            notice = client.notices.pop(0) if client.notices else (await client.receive())[1]
            assert isinstance(notice, wire.Events | wire.Event)
            messages.append(notice.items if isinstance(notice, wire.Events) else [notice])
    assert [event.seq for events in messages for event in events] == list(range(1, 12))
    assert len(messages) < 11


async def test_events_that_travel_together_stay_within_a_message(daemon: Listening) -> None:
    """A client is never sent more than it says that it takes."""
    async with raw_client(daemon.ipc, hello=False) as client:
        hello = wire.Hello(versions=[wire.PROTOCOL_VERSION], features=[wire.EVENTS_TOGETHER])
        await client.ask(hello, wire.Welcome)
        instance = await launch(daemon, client, "flood")
        await until(lambda: instance.events.unacked_bytes >= 64 * 1024)
        sizes = []
        while sum(sizes) < WINDOW - 4096:
            notice = client.notices.pop(0) if client.notices else (await client.receive())[1]
            assert isinstance(notice, wire.Events | wire.Event)
            sizes.append(len(encode(notice)[1]))
    assert max(sizes) <= CONFIG.chunk_bytes
