"""Which instances end with their clients."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest

from pie_client import wire
from pie_daemon.listener.config import ListenerConfig
from support.fake_runtime import FakeInstance, until
from support.listening import Listening, listening
from support.raw_client import RawClient, raw_client

QUICK = ListenerConfig(heartbeat_s=0.02, timeout_s=5.0, grace_s=0.05)
PATIENT = ListenerConfig(heartbeat_s=0.02, timeout_s=5.0, grace_s=3600.0)


@pytest.fixture
async def daemon() -> AsyncIterator[Listening]:
    async with listening(QUICK) as running:
        yield running


@pytest.fixture
async def patient() -> AsyncIterator[Listening]:
    async with listening(PATIENT) as running:
        yield running


async def launch(daemon: Listening, client: RawClient, *, detached: bool = False) -> FakeInstance:
    request = wire.Launch(program="wait", detached=detached)
    launched = await client.ask(request, wire.Launched)
    return daemon.supervisor.all[launched.instance]


async def test_bye_cancels_at_once(patient: Listening) -> None:
    """A client that leaves takes its programs with it, without a grace period."""
    async with raw_client(patient.ipc) as client:
        instance = await launch(patient, client)
        await client.ask(wire.Bye(), wire.Done)
    await until(instance.stopped.is_set)
    assert instance.stop_reason == "its client is gone"


async def test_a_lost_client_is_noticed_and_its_programs_cancelled(daemon: Listening) -> None:
    """A client that vanishes without a word is found by asking, then the grace period runs."""
    async with raw_client(daemon.ipc) as client:
        instance = await launch(daemon, client)
        kept = await launch(daemon, client, detached=True)
    await until(lambda: daemon.server.sessions == [])
    await until(instance.stopped.is_set)
    assert not kept.stopped.is_set()


async def test_a_silent_client_is_gone_after_the_timeout() -> None:
    """A client that is connected and says nothing, like a stopped process, is given up."""
    config = ListenerConfig(heartbeat_s=0.02, timeout_s=0.1, grace_s=0.0)
    async with listening(config) as daemon, raw_client(daemon.ipc) as client:
        instance = await launch(daemon, client)
        await until(instance.stopped.is_set)
        while not isinstance((await client.receive())[1], wire.Heartbeat):
            pass


async def test_pings_keep_a_session(daemon: Listening) -> None:
    """A client that answers heartbeats with pings stays."""
    config = ListenerConfig(heartbeat_s=0.02, timeout_s=0.3, grace_s=0.0)
    async with listening(config) as running, raw_client(running.ipc) as client:
        instance = await launch(running, client)
        for _ in range(40):
            _, notice = await client.receive()
            assert isinstance(notice, wire.Heartbeat | wire.Pong)
            await client.send(wire.Ping())
        assert not instance.stopped.is_set()


async def test_coming_back_in_time_keeps_the_program(patient: Listening) -> None:
    """Attaching within the grace period takes over the tie: the next bye cancels."""
    async with raw_client(patient.ipc) as client:
        instance = await launch(patient, client)
    await until(lambda: patient.server.sessions == [])
    async with raw_client(patient.ipc) as client:
        await client.ask(wire.Attach(instance=instance.id), wire.Attached)
        assert not instance.stopped.is_set()
        await client.ask(wire.Bye(), wire.Done)
    await until(instance.stopped.is_set)


async def test_another_follower_inherits(daemon: Listening) -> None:
    """While somebody else follows it, an instance outlives the client that launched it."""
    async with raw_client(daemon.ipc) as heir:
        async with raw_client(daemon.ipc) as client:
            instance = await launch(daemon, client)
            await heir.ask(wire.Attach(instance=instance.id), wire.Attached)
            await client.ask(wire.Bye(), wire.Done)
        await heir.ask(wire.Ping(), wire.Pong)
        assert not instance.stopped.is_set()
        await heir.ask(wire.Bye(), wire.Done)
    await until(instance.stopped.is_set)


async def test_detach_leaves_it_running(patient: Listening) -> None:
    """After a detach by the client it was tied to, nobody's leaving ends an instance."""
    async with raw_client(patient.ipc) as client:
        instance = await launch(patient, client)
        await client.ask(wire.Detach(instance=instance.id), wire.Done)
        await client.ask(wire.Attach(instance=instance.id), wire.Attached)
        await client.ask(wire.Bye(), wire.Done)
    await until(lambda: patient.server.sessions == [])
    assert not instance.stopped.is_set()


async def test_nobody_inherits_a_session_by_its_route(patient: Listening) -> None:
    """A peer behind the route of a session that is not the one who opened it has no session."""
    async with raw_client(patient.ipc) as client:
        [session] = patient.server.sessions
        session.peer = dataclasses.replace(session.peer, address="localhost:0:0:1")
        assert (await client.ask(wire.Ping(), wire.Error)).code == "closed"
