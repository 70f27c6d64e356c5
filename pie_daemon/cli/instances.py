"""Commands about what the running daemon has: instances and programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from pie_client import wire
from pie_client.aio import AsyncClient
from pie_client.errors import PieError
from pie_client.process import AsyncProcess
from pie_daemon.cli import exits, show
from pie_daemon.cli.terminal import print_json, print_table
from pie_daemon.tasks import Tasks

_TIMEOUT_S = 5.0


def with_client(work: Callable[[AsyncClient], Awaitable[int]]) -> int:
    """Runs it against the daemon; NotRunning when there is none."""

    async def connected() -> int:
        async with await AsyncClient.connect(timeout_s=_TIMEOUT_S, name="pie") as client:
            return await work(client)

    return asyncio.run(connected())


def list_instances(*, as_json: bool) -> int:
    async def work(client: AsyncClient) -> int:
        instances = sorted(await client.instances(), key=lambda i: i.started_at)
        if as_json:
            print_json(instances)
            return exits.OK
        columns = ["ID", "PROGRAM", "STATE", "USER", "AGE", "CPU", "TOKENS", "PAGES"]
        print_table(columns, [_instance_row(instance) for instance in instances])
        return exits.OK

    return with_client(work)


def _instance_row(info: wire.InstanceInfo) -> list[str]:
    return [
        info.id,
        info.program,
        info.state if info.outcome is None else info.outcome.status,
        info.username,
        age(time.time() - info.started_at),
        f"{info.cpu_s:.1f}s",
        str(info.tokens),
        str(info.kv_pages),
    ]


def list_programs(*, as_json: bool) -> int:
    async def work(client: AsyncClient) -> int:
        programs = await client.programs()
        if as_json:
            print_json(programs)
            return exits.OK
        columns = ["NAME", "FROM", "VERSION", "STATE", "RUNNING", "SIZE", "UPDATED", "REMARK"]
        print_table(columns, [_program_row(program) for program in programs])
        return exits.OK

    return with_client(work)


def _program_row(info: wire.ProgramInfo) -> list[str]:
    return [
        info.name,
        info.namespace,
        info.version or "-",
        info.state,
        str(info.instances),
        f"{(info.size_bytes or 0) / 2**20:.1f}M",
        age(time.time() - info.updated_at),
        info.reason or "",
    ]


def age(seconds: float) -> str:
    """Roughly, in the largest unit that makes sense."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def stop_instances(ids: Sequence[str], reason: str) -> int:
    """Ends them; each has ended when this returns."""

    async def work(client: AsyncClient) -> int:
        for id_ in [await full_id(client, given) for given in ids]:
            process = await client.attach(id_)
            await process.terminate(reason)
            await process.outcome()
            sys.stdout.write(f"{id_}\n")
        return exits.OK

    return with_client(work)


async def full_id(client: AsyncClient, given: str) -> str:
    """The one instance whose id starts so."""
    ids = [instance.id for instance in await client.instances()]
    matching = [given] if given in ids else [id_ for id_ in ids if id_.startswith(given)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise PieError("not-found", f"no instance has the id {given}; `pie ps` lists them")
    raise PieError("invalid-argument", f"{given} is the start of several ids: {' '.join(matching)}")


def follow_instance(given: str, *, as_json: bool, forward_input: bool) -> int:
    """Everything that is kept of its output, then what comes, until it ends.

    Leaving with Ctrl-C leaves the program running.
    """

    async def work(client: AsyncClient) -> int:
        process = await client.attach(await full_id(client, given))
        tasks = Tasks("attach")
        if forward_input:
            tasks.spawn(forward_lines(process), "input")
        try:
            return await show.follow(process, as_json=as_json)
        except asyncio.CancelledError:
            with contextlib.suppress(PieError):
                await process.detach()
            raise
        finally:
            await tasks.close()

    return with_client(work)


async def forward_lines(process: AsyncProcess) -> None:
    """Each line of standard input is a message; its end tells the program that no more come."""
    with contextlib.suppress(PieError):
        async for line in lines_of(sys.stdin.fileno()):
            await process.send(line)
        await process.close_input()


async def lines_of(descriptor: int) -> AsyncIterator[str]:
    """Read without a thread: one that blocks on standard input cannot be ended."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    try:
        loop.add_reader(descriptor, lambda: chunks.put_nowait(os.read(descriptor, 65536)))
    except PermissionError:
        # A regular file is always ready, and the selector refuses it for that.
        while data := os.read(descriptor, 65536):
            chunks.put_nowait(data)
        chunks.put_nowait(b"")
    rest = b""
    try:
        while data := await chunks.get():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
    finally:
        loop.remove_reader(descriptor)
    if rest:
        yield rest.decode(errors="replace")
