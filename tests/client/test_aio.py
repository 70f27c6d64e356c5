"""The asyncio client against a real listener over a fake runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pie_client import AsyncClient, NotRunning, PieError, ProgramError, wire
from pie_client.events import Finished, Message
from pie_daemon.listener.config import ListenerConfig
from support.fake_runtime import FakeInstance, until
from support.listening import Listening, listening


@pytest.fixture
async def daemon() -> AsyncIterator[Listening]:
    async with listening() as running:
        yield running


@pytest.fixture(params=["ipc", "tcp"])
async def client(daemon: Listening, request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.connect(getattr(daemon, request.param)) as connected:
        yield connected


async def test_launch_streams_events_and_returns_the_result(client: AsyncClient) -> None:
    """A launched program's events arrive in order and its JSON result is parsed."""
    process = await client.launch("echo", {"prompt": "hi"})
    events = [event async for event in process.events()]
    assert [type(event) for event in events] == [Message, Finished]
    assert isinstance(events[0], Message)
    assert events[0].json() == {"prompt": "hi"}
    assert await process.result() == {"prompt": "hi"}


async def test_a_failed_program_raises_its_code(client: AsyncClient) -> None:
    """`result` of a program that failed raises the program's own code and sentence."""
    process = await client.launch("fail")
    with pytest.raises(ProgramError, match="no prompt") as raised:
        await process.result()
    assert (raised.value.status, raised.value.code) == ("error", "invalid-argument")


async def test_terminate_ends_a_program(client: AsyncClient) -> None:
    """A terminated program's outcome is `cancelled`."""
    process = await client.launch("wait")
    await process.terminate()
    assert (await process.outcome()).status == "cancelled"


async def test_unknown_program(client: AsyncClient) -> None:
    """The daemon's refusal keeps its code."""
    with pytest.raises(PieError, match="no program nothing") as raised:
        await client.launch("nothing")
    assert raised.value.code == "not-found"


async def test_lists_and_status(client: AsyncClient) -> None:
    """Lists and status tell what runs."""
    process = await client.launch("echo")
    await process.result()
    assert [info.id for info in await client.instances()] == [process.id]
    assert (await client.programs()) == []
    status = await client.status()
    assert (status.sessions, status.instances, status.detail) == (1, 0, {"fake": True})
    assert await client.ping() < 10


async def test_upload(client: AsyncClient, daemon: Listening) -> None:
    """An upload of several chunks arrives whole and is installed off the loop."""
    data = bytes(range(256)) * 5000
    info = await client.upload(data, name="mine")
    assert (info.name, info.size_bytes) == ("mine", len(data))
    assert list(daemon.programs.installed.values()) == [data]
    assert all(name.startswith("pie-listener-install") for name in daemon.programs.threads)


async def test_no_daemon() -> None:
    """Without a daemon the error names the endpoint at once."""
    with pytest.raises(NotRunning, match=r"ipc:///tmp/nobody-here\.sock"):
        await AsyncClient.connect("ipc:///tmp/nobody-here.sock")
    with pytest.raises(NotRunning, match="nothing listens"):
        await AsyncClient.connect("tcp://127.0.0.1:9")


async def test_waiting_for_the_result_leaves_nothing_behind(
    client: AsyncClient, daemon: Listening
) -> None:
    """Whoever only asks for the result has acknowledged everything, so nothing is kept for him."""
    process = await client.launch("echo", 1)
    assert await process.result() == 1
    await client.ping()
    assert daemon.supervisor.all[process.id].events.unacked_bytes == 0
    assert daemon.supervisor.all[process.id].events.num_callbacks == 0
    assert [event async for event in process.events()] == []


def chatter(instance: FakeInstance) -> None:
    """Says far more than the windows hold."""
    for number in range(300):
        instance.send(f"{number:5000}", limit_bytes=16 * 1024)
    instance.finish(wire.Outcome(status="ok", result="300"))


async def test_asking_for_the_result_while_iterating_does_not_deadlock() -> None:
    """Inside a loop over its events, the result of a talkative program can be awaited."""
    config = ListenerConfig(event_window_bytes=16 * 1024)
    async with listening(config, chatter=chatter) as daemon:
        async with await AsyncClient.connect(daemon.ipc) as client:
            process = await client.launch("chatter")
            seen: list[int] = []
            async for event in process.events():
                if isinstance(event, Message):
                    seen.append(event.json())
                    assert await process.result() == 300
            assert seen == list(range(300))


async def test_a_flood_that_nobody_reads_is_bounded() -> None:
    """Events that are not taken stay with the daemon: the client's memory is one window."""
    config = ListenerConfig(event_window_bytes=16 * 1024)
    async with listening(config, chatter=chatter) as daemon:
        async with await AsyncClient.connect(daemon.ipc) as client:
            process = await client.launch("chatter")
            instance = daemon.supervisor.all[process.id]
            await until(lambda: instance.events.unacked_bytes >= 16 * 1024)
            await client.ping()
            assert process.received <= 6
            assert await process.result() == 300
