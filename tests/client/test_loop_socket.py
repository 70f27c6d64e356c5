"""A socket that the loop reads: everything arrives, in order, whatever else is going on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import zmq

from pie_client.loop_socket import LoopSocket

HANG_S = 30.0
NUM_MESSAGES = 200


class Peer:
    """The two ends of one connection, of which the loop reads `near`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.far = context.socket(zmq.PAIR)
        near = context.socket(zmq.PAIR)
        for socket in (self.far, near):
            socket.setsockopt(zmq.SNDHWM, 1)
            socket.setsockopt(zmq.RCVHWM, NUM_MESSAGES)
        # What is on its way beyond this end's own queue is as much as the other end's takes.
        self.far.bind("inproc://peer")
        near.connect("inproc://peer")
        self.arrived: list[bytes] = []
        self.awaited = 1
        self.all_here = asyncio.Event()
        self.near = LoopSocket(near, self._take)

    def _take(self, frames: list[bytes]) -> None:
        self.arrived.append(frames[0])
        if len(self.arrived) == self.awaited:
            self.all_here.set()
        if frames == [b"bad"]:
            raise ValueError("what the function makes of a message is its own affair")

    async def wait_for(self, num_messages: int) -> list[bytes]:
        self.awaited = num_messages
        if len(self.arrived) < num_messages:
            await asyncio.wait_for(self.all_here.wait(), HANG_S)
        return self.arrived


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    with zmq.Context() as context:
        peer = Peer(context)
        yield peer
        peer.near.close()
        peer.far.close(0)


def fill(peer: Peer) -> int:
    """Sends until there is no room; how many that were."""
    num_sent = 0
    while peer.near.send([b"%d" % num_sent]):
        num_sent += 1
    return num_sent


def numbers(start: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, end)]


async def test_all_that_is_there_arrives_in_order(peer: Peer) -> None:
    """More messages than are read in one turn of the loop."""
    for number in range(NUM_MESSAGES):
        peer.far.send(b"%d" % number)

    assert numbers(0, NUM_MESSAGES) == await peer.wait_for(NUM_MESSAGES)


async def test_what_comes_while_this_end_sends_arrives(peer: Peer) -> None:
    """Sending takes note of what has come, after which the system says nothing of it any more."""
    await asyncio.sleep(0)
    for number in range(NUM_MESSAGES):
        peer.far.send(b"%d" % number)
        assert peer.near.send([b"mine"])
        assert b"mine" == peer.far.recv()

    assert numbers(0, NUM_MESSAGES) == await peer.wait_for(NUM_MESSAGES)


async def test_a_message_that_fails_does_not_hold_up_the_next(peer: Peer) -> None:
    """Its error goes to the loop's own handler."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: errors.append(what))
    peer.far.send(b"bad")
    peer.far.send(b"good")

    assert [b"bad", b"good"] == await peer.wait_for(2)
    assert ["ValueError"] == [type(what["exception"]).__name__ for what in errors]


async def test_who_waits_for_room_keeps_the_order(peer: Peer) -> None:
    """They go out one behind the other, nobody passes them, and who has given up is left out."""
    num_sent = fill(peer)
    waiting = [
        asyncio.create_task(peer.near.send_in_turn([b"%d" % number]))
        for number in range(num_sent, num_sent + 3)
    ]
    await asyncio.sleep(0)
    waiting[1].cancel()

    received = [peer.far.recv()]
    assert not peer.near.send([b"who does not wait"])
    await asyncio.wait_for(
        asyncio.gather(waiting[0], _read_on(peer, num_sent + 2, received)), HANG_S
    )
    await waiting[2]

    assert [*numbers(0, num_sent + 1), b"%d" % (num_sent + 2)] == received


async def test_closing_lets_go_of_those_who_wait(peer: Peer) -> None:
    """Nobody waits for room in a socket that is gone."""
    num_sent = fill(peer)
    waiting = asyncio.create_task(peer.near.send_in_turn([b"%d" % num_sent]))
    await asyncio.sleep(0)

    peer.near.close()

    await asyncio.wait_for(waiting, HANG_S)


async def _read_on(peer: Peer, num_messages: int, received: list[bytes]) -> None:
    while len(received) < num_messages:
        try:
            received.append(peer.far.recv(zmq.NOBLOCK))
        except zmq.Again:
            await asyncio.sleep(0)
