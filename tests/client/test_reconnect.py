"""The client when the daemon or the connection goes, comes back, or is something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import zmq.asyncio

from pie_client import AsyncClient, NotRunning, PieError, VersionMismatch, wire
from pie_client.codec import decode_request, encode
from pie_client.events import Finished, Gap, Message
from pie_daemon.listener.config import ListenerConfig
from pie_daemon.listener.server import Server
from support.fake_runtime import FakeInstance, until
from support.listening import Listening, listening

QUICK = ListenerConfig(heartbeat_s=0.05, timeout_s=10.0)


def count(instance: FakeInstance) -> None:
    """Sends a number for each message that it gets, up to ten."""
    sent = 0
    while sent < 10 and not instance.stopped.is_set():
        while sent < len(instance.received):
            sent += 1
            instance.send(str(sent))
        instance.stopped.wait(0.002)
    instance.finish(wire.Outcome(status="ok", result=str(sent)))


@pytest.fixture
async def daemon() -> AsyncIterator[Listening]:
    async with listening(QUICK, count=count) as running:
        yield running


@asynccontextmanager
async def restarted(daemon: Listening) -> AsyncIterator[Server]:
    """Another server on the same socket, over the same instances."""
    await daemon.server.close()
    uploads = daemon.directory / "uploads"
    endpoint = f"ipc://{daemon.directory}/pie.sock"
    config = ListenerConfig(endpoints=(endpoint,))
    server = Server(config, daemon.services, daemon.directory, uploads)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def test_processes_go_on_after_a_lost_connection(daemon: Listening) -> None:
    """Every event arrives exactly once, over two connections."""
    async with await AsyncClient.connect(daemon.ipc) as client:
        process = await client.launch("count")
        events = process.events()
        seen: list[str] = []
        for number in range(5):
            await process.send(str(number))
            event = await anext(events)
            assert isinstance(event, Message)
            seen.append(event.text)
        async with restarted(daemon) as server:
            await until(lambda: server.sessions != [])
            for number in range(5):
                await process.send(str(number))
            rest = [event async for event in events]
            seen += [event.text for event in rest if isinstance(event, Message)]
            assert await process.result() == 10
    assert seen == [str(number) for number in range(1, 11)]


async def test_what_may_have_been_done_is_not_repeated(
    daemon: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch whose answer was lost raises `interrupted`; a question is asked again."""
    asked = asyncio.Event()

    async def never(*_: object) -> wire.Reply:
        asked.set()
        await asyncio.Event().wait()
        return wire.Done()

    async with await AsyncClient.connect(daemon.ipc) as client:
        monkeypatch.setitem(daemon.server.commands.later, wire.Launch, never)
        launch = asyncio.ensure_future(client.launch("count"))
        await asked.wait()
        monkeypatch.setattr("pie_daemon.listener.session.Session.reply", lambda *_: None)
        closing = asyncio.ensure_future(daemon.server.close())
        with pytest.raises(PieError) as raised:
            await launch
        await closing
        assert raised.value.code == "interrupted"
        assert "may have been done" in raised.value.message
        monkeypatch.undo()
        question = asyncio.ensure_future(client.status())
        async with restarted(daemon):
            assert (await question).sessions == 1


async def test_a_daemon_that_stays_away(daemon: Listening) -> None:
    """After its patience the client says that nobody is there, to everybody who waits."""
    async with await AsyncClient.connect(daemon.ipc, reconnect_s=0.1) as client:
        process = await client.launch("wait")
        await daemon.server.close("maintenance")
        with pytest.raises(NotRunning, match="maintenance"):
            await process.result()
        with pytest.raises(NotRunning):
            await client.ping()


async def test_an_instance_that_is_forgotten(daemon: Listening) -> None:
    """A new daemon that does not know the instance: its process raises `interrupted`."""
    async with await AsyncClient.connect(daemon.ipc) as client:
        process = await client.launch("wait")
        instance = daemon.supervisor.all.pop(process.id)
        async with restarted(daemon):
            with pytest.raises(PieError, match=f"does not know {process.id}") as raised:
                await process.result()
            assert raised.value.code == "interrupted"
        instance.cancel("the test is over")


async def test_an_upload_goes_on_after_a_lost_connection(daemon: Listening) -> None:
    """An upload that was cut resumes with the bytes that had arrived."""
    data = bytes(range(256)) * 20_000
    async with await AsyncClient.connect(daemon.ipc) as client, asyncio.TaskGroup() as tasks:
        halfway = asyncio.Event()

        def progress(sent: int, total: int) -> None:
            if sent > total // 2:
                halfway.set()

        upload = tasks.create_task(client.upload(data, "big", progress))
        await halfway.wait()
        async with restarted(daemon):
            assert (await upload).size_bytes == len(data)
    assert list(daemon.programs.installed.values()) == [data]


async def test_waiting_for_a_daemon(daemon: Listening) -> None:
    """With `wait`, a client may be started before its daemon."""
    await daemon.server.close()
    connecting = asyncio.ensure_future(
        AsyncClient.connect(f"ipc://{daemon.directory}/pie.sock", wait=True)
    )
    async with restarted(daemon):
        async with await connecting as client:
            await client.ping()


@asynccontextmanager
async def stranger(path: Path, answer: Callable[[list[bytes]], list[bytes]]) -> AsyncIterator[str]:
    """Something else that listens with a ROUTER socket."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind("tcp://127.0.0.1:*")

    async def serve() -> None:
        while True:
            route, *frames = await socket.recv_multipart()
            await socket.send_multipart([route, *answer(frames)])

    serving = asyncio.ensure_future(serve())
    try:
        yield socket.getsockopt_string(zmq.LAST_ENDPOINT)
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        socket.close(0)
        context.term()


async def test_something_that_is_not_pie(tmp_path: Path) -> None:
    """Another ZeroMQ service is recognised as such."""
    async with stranger(tmp_path, lambda frames: [b"hello?"]) as endpoint:
        with pytest.raises(NotRunning, match="does not speak Pie's protocol"):
            await AsyncClient.connect(endpoint)


async def test_something_that_is_not_zeromq() -> None:
    """A port behind which somebody speaks another protocol, or nothing, is not a daemon."""

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(web, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotRunning, match=f"tcp://127.0.0.1:{port}"):
            await AsyncClient.connect(f"tcp://127.0.0.1:{port}", timeout_s=5)


async def test_a_daemon_of_another_version(tmp_path: Path) -> None:
    """A version mismatch names both sides."""

    def answer(frames: list[bytes]) -> list[bytes]:
        correlation, _ = decode_request(frames, 1 << 20)
        error = wire.Error(code="unsupported", message="supported: 9", detail={"versions": [9]})
        return list(encode(error, correlation))

    async with stranger(tmp_path, answer) as endpoint:
        with pytest.raises(VersionMismatch, match=r"speaks protocol version 1.*supported: 9"):
            await AsyncClient.connect(endpoint)


async def test_bad_endpoints() -> None:
    """An endpoint that is none is named."""
    with pytest.raises(NotRunning, match="nonsense"):
        await AsyncClient.connect("nonsense")


async def test_a_silent_daemon_times_out(tmp_path: Path) -> None:
    """A listener that never answers is given up after the timeout."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind("tcp://127.0.0.1:*")
    endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    with pytest.raises(NotRunning, match=r"no answer to hello within 0\.1 s"):
        await AsyncClient.connect(endpoint, timeout_s=0.1)
    socket.close(0)
    context.term()


async def test_a_client_that_slept_comes_back(daemon: Listening) -> None:
    """When the daemon has given a session up, the client begins anew and misses nothing."""
    async with await AsyncClient.connect(daemon.ipc) as client:
        process = await client.launch("count")
        for session in daemon.server.sessions:
            daemon.server.end(session)
        await until(lambda: daemon.server.sessions != [])
        for _ in range(10):
            await process.send("go")
        assert [
            event.seq async for event in process.events() if not isinstance(event, Gap)
        ] == list(range(1, 12))


async def test_heartbeats_keep_an_idle_client(daemon: Listening) -> None:
    """A client that says nothing for many heartbeats keeps its session and its program."""
    config = ListenerConfig(heartbeat_s=0.05, timeout_s=0.4, grace_s=0.0)
    async with listening(config) as running:
        async with await AsyncClient.connect(running.ipc) as client:
            process = await client.launch("wait")
            loop = asyncio.get_running_loop()
            end_s = loop.time() + 1.0
            await until(lambda: loop.time() > end_s)
            assert not process.finished
            assert len(running.server.sessions) == 1
            events = process.events()
            await process.terminate()
            assert isinstance(await anext(events), Finished)
