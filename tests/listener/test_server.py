"""Requests over real sockets: each answered exactly once, whatever else arrives."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from pie_client import wire
from pie_client.codec import HEAD, MAGIC, NOTICE
from pie_daemon.errors import PieError
from pie_daemon.listener.config import ListenerConfig
from pie_daemon.listener.lock import AlreadyRunning, acquire
from pie_daemon.listener.server import Server
from support.fake_runtime import FakeInstance, until
from support.listening import Listening, listening
from support.raw_client import RawClient, raw_client

SMALL = ListenerConfig(max_message_bytes=64 * 1024, max_requests=4, max_sessions=2)


@pytest.fixture
async def daemon() -> AsyncIterator[Listening]:
    async with listening() as running:
        yield running


@pytest.fixture
async def client(daemon: Listening) -> AsyncIterator[RawClient]:
    async with raw_client(daemon.ipc) as connected:
        yield connected


async def test_hello_tells_the_limits(daemon: Listening) -> None:
    """Welcome carries the version and every limit a client has to keep."""
    async with raw_client(daemon.tcp, hello=False) as client:
        welcome = await client.hello()
    config = daemon.server.config
    assert welcome.version == wire.PROTOCOL_VERSION
    assert welcome.max_message_bytes == config.max_message_bytes
    assert (welcome.chunk_bytes, welcome.credit) == (config.chunk_bytes, config.upload_credit)


async def test_a_client_with_small_messages_gets_small_chunks(daemon: Listening) -> None:
    """Chunks fit into what the client takes."""
    async with raw_client(daemon.ipc, hello=False) as client:
        hello = wire.Hello(versions=[1], max_message_bytes=65536)
        assert (await client.ask(hello, wire.Welcome)).chunk_bytes < 65536


async def test_without_hello_nothing_is_done(daemon: Listening) -> None:
    """A request on a connection without a session is answered `closed`."""
    async with raw_client(daemon.ipc, hello=False) as client:
        error = await client.ask(wire.Launch(program="echo"), wire.Error)
    assert error.code == "closed"
    assert "say hello first" in error.message
    assert daemon.supervisor.all == {}


async def test_no_common_version(daemon: Listening) -> None:
    """A client of the future is told which versions are spoken; it gets no session."""
    async with raw_client(daemon.ipc, hello=False) as client:
        error = await client.ask(wire.Hello(versions=[7, 8]), wire.Error)
        assert (error.code, error.detail) == ("unsupported", {"versions": [1]})
        assert daemon.server.sessions == []
        await client.hello()


async def test_unknown_type_and_field_are_named(client: RawClient) -> None:
    """What this daemon does not know is named in the answer to that very request."""
    head = HEAD.pack(MAGIC, wire.PROTOCOL_VERSION, 77)
    await client.socket.send_multipart([head, b"\x81\xa4type\xa6coffee"])
    correlation, error = await client.receive()
    assert isinstance(error, wire.Error)
    assert (correlation, error.code) == (77, "unsupported")
    assert "'coffee'" in error.message
    await client.socket.send_multipart([head, b"\x82\xa4type\xa4ping\xa1x\x01"])
    correlation, error = await client.receive()
    assert isinstance(error, wire.Error)
    assert (correlation, error.code) == (77, "invalid-argument")
    assert "`x`" in error.message


async def test_only_ack_may_ask_for_no_answer(client: RawClient) -> None:
    """A request with correlation id 0 is refused by a notice."""
    await client.send(wire.Ping(), NOTICE)
    correlation, error = await client.receive()
    assert isinstance(error, wire.Error)
    assert (correlation, error.code) == (NOTICE, "invalid-argument")


async def test_random_frames_do_not_hurt(daemon: Listening, client: RawClient) -> None:
    """Thousands of junk messages, greeted or not, leave a daemon that answers, and a short log."""
    numbers = random.Random(7)
    with structlog.testing.capture_logs() as logs:
        async with raw_client(daemon.tcp, hello=False) as junk:
            for _ in range(1500):
                frames = [numbers.randbytes(numbers.randrange(40)) for _ in range(3)]
                await junk.socket.send_multipart(frames[: numbers.randrange(1, 4)])
                await client.socket.send_multipart([b"PIE\x01" + bytes(8), frames[0]])
        await client.ask(wire.Ping(), wire.Pong)
    assert sum(entry["event"] == "bad message" for entry in logs) <= 3
    assert not [entry for entry in logs if entry["log_level"] == "error"]


async def test_an_oversize_message_costs_its_sender_the_connection() -> None:
    """A frame over the limit is not read; everybody else is served on."""
    async with (
        listening(SMALL) as daemon,
        raw_client(daemon.ipc) as good,
        raw_client(daemon.ipc) as bad,
    ):
        await bad.socket.send_multipart([b"PIE\x01" + bytes(8), bytes(65 * 1024)])
        await good.ask(wire.Ping(), wire.Pong)
        # The connection was cut and came back without a session.
        assert (await bad.ask(wire.Ping(), wire.Error)).code == "closed"


async def test_100_requests_at_once(daemon: Listening, client: RawClient) -> None:
    """Each of many concurrent requests is answered exactly once."""
    kinds: list[wire.Request] = [
        wire.Ping(),
        wire.GetStatus(),
        wire.ListInstances(),
        wire.Launch(program="nothing"),
        wire.Terminate(instance="nobody"),
    ]
    sent = [await client.send(kinds[number % 5]) for number in range(100)]
    answered = [await client.receive() for _ in sent]
    assert sorted(correlation for correlation, _ in answered) == sorted(sent)
    assert sum(isinstance(reply, wire.Error) for _, reply in answered) == 40
    await client.ask(wire.Ping(), wire.Pong)


async def test_a_handler_that_raises_answers_internal(daemon: Listening, client: RawClient) -> None:
    """A bug gives the client a code and no traceback, and the log the traceback."""
    with structlog.testing.capture_logs() as logs:
        error = await client.ask(wire.Launch(program="bug"), wire.Error)
    assert error.code == "internal"
    assert "supervisor" not in error.message
    [entry] = [entry for entry in logs if entry["event"] == "command failed"]
    assert (entry["command"], entry["exc_info"]) == ("launch", True)
    await client.ask(wire.Ping(), wire.Pong)


async def test_an_answer_that_cannot_be_encoded_is_answered(
    daemon: Listening, client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A status detail that msgpack cannot carry gives `internal`, not silence."""
    monkeypatch.setattr(daemon.supervisor, "instances", lambda: [])
    object.__setattr__(daemon.services, "detail", lambda: {"bad": object()})
    with structlog.testing.capture_logs():
        assert (await client.ask(wire.GetStatus(), wire.Error)).code == "internal"


async def test_too_many_requests_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with too many unanswered requests is told `busy`, and served again afterwards."""
    async with listening(SMALL) as daemon, raw_client(daemon.ipc) as client:
        release = asyncio.Event()

        async def slow(*_: Any) -> wire.Pong:
            await release.wait()
            return wire.Pong()

        monkeypatch.setitem(daemon.server.commands.later, wire.Ping, slow)
        for _ in range(6):
            await client.send(wire.Ping())
        refused = [(await client.receive())[1] for _ in range(2)]
        assert all(isinstance(one, wire.Error) and one.code == "busy" for one in refused)
        release.set()
        answers = [(await client.receive())[1] for _ in range(4)]
        assert answers == [wire.Pong()] * 4
        await client.ask(wire.GetStatus(), wire.Status)


async def test_too_many_clients_are_busy() -> None:
    """The client over the limit is refused and may come once another one has left."""
    async with (
        listening(SMALL) as daemon,
        raw_client(daemon.ipc) as first,
        raw_client(daemon.ipc),
        raw_client(daemon.ipc, hello=False) as third,
    ):
        error = await third.ask(wire.Hello(versions=[1]), wire.Error)
        assert error.code == "busy"
        await first.ask(wire.Bye(), wire.Done)
        await third.hello()


async def test_a_second_daemon_is_refused_and_the_first_serves_on(
    daemon: Listening, client: RawClient
) -> None:
    """Two servers on one runtime directory: the second fails, the first does not notice."""
    second = Server(ListenerConfig(), daemon.services, daemon.directory, daemon.directory / "u2")
    with pytest.raises(AlreadyRunning):
        await second.start()
    await client.ask(wire.Ping(), wire.Pong)
    async with raw_client(daemon.ipc) as other:
        await other.ask(wire.Ping(), wire.Pong)


async def test_a_failed_start_leaves_nothing_behind(daemon: Listening) -> None:
    """When one endpoint cannot be bound, the others and the lock are free again."""
    directory = daemon.directory / "second"
    endpoints = (f"ipc://{directory}/a.sock", daemon.tcp)
    config = ListenerConfig(endpoints=endpoints)
    server = Server(config, daemon.services, directory, directory / "uploads")
    with pytest.raises(PieError, match="cannot listen"):
        await server.start()
    acquire(directory).release()


async def test_the_default_endpoint_lies_in_the_runtime_directory(daemon: Listening) -> None:
    """Without endpoints the socket is `pie.sock` in the runtime directory."""
    directory = daemon.directory / "r"
    server = Server(ListenerConfig(), daemon.services, directory, directory / "uploads")
    await server.start()
    try:
        assert server.endpoints == [f"ipc://{directory}/pie.sock"]
        async with raw_client(server.endpoints[0]) as client:
            await client.ask(wire.Ping(), wire.Pong)
    finally:
        await server.close()


async def test_close_answers_what_is_open_and_says_goodbye(
    daemon: Listening, client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that still run are answered `closed`; then comes the reason."""
    started = asyncio.Event()

    async def never(*_: Any) -> wire.Pong:
        started.set()
        await asyncio.Event().wait()
        return wire.Pong()

    monkeypatch.setitem(daemon.server.commands.later, wire.Ping, never)
    number = await client.send(wire.Ping())
    await started.wait()
    await daemon.server.close("maintenance")
    correlation, error = await client.receive()
    assert isinstance(error, wire.Error)
    assert (correlation, error.code) == (number, "closed")
    assert await client.receive() == (NOTICE, wire.Goodbye(reason="maintenance"))
    await daemon.server.close()


async def test_close_delivers_the_last_events(daemon: Listening, client: RawClient) -> None:
    """What a program said before the daemon stopped still reaches its client."""
    launched = await client.ask(wire.Launch(program="wait"), wire.Launched)
    daemon.server.drain()
    instance = daemon.supervisor.all[launched.instance]
    instance.cancel("shutdown")
    instance.join()
    await daemon.server.close()
    assert (await client.event()).kind == "outcome"


async def test_a_draining_daemon_takes_nothing_new(daemon: Listening, client: RawClient) -> None:
    """While draining, launches and uploads are refused and the rest is served."""
    daemon.server.drain()
    assert (await client.ask(wire.Launch(program="echo"), wire.Error)).code == "closed"
    begin = wire.UploadBegin(sha256="0" * 64, size=1)
    assert (await client.ask(begin, wire.Error)).code == "closed"
    await client.ask(wire.Ping(), wire.Pong)


async def test_messages_reach_the_program_in_order(daemon: Listening, client: RawClient) -> None:
    """Messages sent without waiting for answers arrive in the order in which they were sent."""
    launched = await client.ask(wire.Launch(program="wait"), wire.Launched)
    for number in range(50):
        await client.send(wire.Message(instance=launched.instance, text=str(number)))
    await client.ask(wire.CloseInput(instance=launched.instance), wire.Done)
    instance = daemon.supervisor.all[launched.instance]
    assert instance.received == [str(number) for number in range(50)]
    assert instance.input_closed.is_set()


async def test_tcp_clients_see_only_their_own(daemon: Listening, client: RawClient) -> None:
    """What the operator runs does not exist for an anonymous client; not the other way round."""
    mine = await client.ask(wire.Launch(program="wait"), wire.Launched)
    async with raw_client(daemon.tcp) as anonymous:
        theirs = await anonymous.ask(wire.Launch(program="wait"), wire.Launched)
        listed = await anonymous.ask(wire.ListInstances(), wire.InstanceList)
        assert [info.id for info in listed.items] == [theirs.instance]
        for request in (
            wire.Terminate(instance=mine.instance),
            wire.Attach(instance=mine.instance),
            wire.Message(instance=mine.instance, text="hi"),
        ):
            assert (await anonymous.ask(request, wire.Error)).code == "not-found"
        await client.ask(wire.Attach(instance=theirs.instance), wire.Attached)
        listed = await client.ask(wire.ListInstances(), wire.InstanceList)
        assert len(listed.items) == 2


async def test_budgets_reach_the_supervisor(daemon: Listening, client: RawClient) -> None:
    """The budgets of a launch arrive as they were sent."""
    budgets = wire.Budgets(max_tokens_total=5, deadline_s=1.5)
    launched = await client.ask(wire.Launch(program="echo", budgets=budgets), wire.Launched)
    assert daemon.supervisor.all[launched.instance].budgets == budgets


async def test_a_client_that_never_reads_answers_is_dropped() -> None:
    """Answers for a client that does not read them are bounded; then it is dropped."""

    def noisy(instance: FakeInstance) -> None:
        instance.stopped.wait(30)

    config = ListenerConfig(max_outbox_bytes=1024 * 1024, heartbeat_s=3600, timeout_s=7200)
    async with (
        listening(config, noisy=noisy) as daemon,
        raw_client(daemon.ipc, receive_hwm=1) as deaf,
    ):
        object.__setattr__(daemon.services, "detail", lambda: {"long": "x" * 50_000})
        with structlog.testing.capture_logs() as logs:
            for _ in range(20_000):
                await deaf.send(wire.GetStatus())
                if daemon.server.sessions == []:
                    break
                await asyncio.sleep(0)
            await until(lambda: daemon.server.sessions == [])
        assert "does not read" in next(e["reason"] for e in logs if e["event"] == "client lost")
        async with raw_client(daemon.ipc) as other:
            await other.ask(wire.Ping(), wire.Pong)
