"""`pie run`: through the running daemon, else through one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pie_client.aio import AsyncClient
from pie_client.errors import NotRunning, PieError
from pie_client.process import AsyncProcess
from pie_daemon.cli import show
from pie_daemon.cli.exits import UsageError
from pie_daemon.cli.inline import check_overrides, inline_client
from pie_daemon.cli.terminal import Progress, progress

_POLL_S = 0.05
_CONNECT_TIMEOUT_S = 5.0
_FAREWELL_S = 2.0


@dataclass(frozen=True)
class RunRequest:
    target: str
    """Name of a program, or path of a component."""
    input: str
    needs_daemon: bool
    as_json: bool
    overrides: Sequence[str]

    @property
    def path(self) -> Path | None:
        """Of the component; None when the target is a name."""
        looks_like_path = os.sep in self.target or self.target.endswith(".wasm")
        return Path(self.target) if looks_like_path else None


def run_program(request: RunRequest) -> int:
    """The exit code of the program."""
    if request.path is not None and not request.path.is_file():
        raise UsageError(f"there is no file {request.target}")
    return asyncio.run(_run(request))


async def _run(request: RunRequest) -> int:
    with progress() as shown:
        shown.say("connecting")
        async with _client(request, shown) as client:
            process = await _launch(client, request, shown)
            shown.clear()
            try:
                return await show.follow(process, as_json=request.as_json)
            except asyncio.CancelledError:
                await _terminate(process)
                raise


@asynccontextmanager
async def _client(request: RunRequest, shown: Progress) -> AsyncIterator[AsyncClient]:
    try:
        client = await AsyncClient.connect(timeout_s=_CONNECT_TIMEOUT_S, name="pie run")
    except NotRunning:
        if request.needs_daemon:
            raise
    else:
        async with client:
            check_overrides(request.overrides, daemon_runs=True)
            yield client
        return
    shown.say("no daemon runs: loading the model for this run")
    name = request.target if request.path is None else None
    async with inline_client(name, request.overrides) as client:
        yield client


async def _launch(client: AsyncClient, request: RunRequest, shown: Progress) -> AsyncProcess:
    if request.path is not None:
        shown.say(f"compiling {request.path.name}")
        program = await client.upload(request.path)
        # By content: a program of that name in the inferlet folder would come first.
        return await client.launch(f"sha256:{program.digest}", request.input)
    while True:
        try:
            return await client.launch(request.target, request.input)
        except PieError as error:
            is_missing = error.code in ("not-found", "busy")
            if not is_missing or not await is_coming(client, request.target):
                raise
        shown.say(f"compiling {request.target}")
        await asyncio.sleep(_POLL_S)


async def is_coming(client: AsyncClient, name: str) -> bool:
    """True when the daemon will take the program from its folder in a moment."""
    programs = {program.name: program.state for program in await client.programs()}
    if (state := programs.get(name)) is not None:
        return state in ("settling", "compiling")
    watcher = (await client.status()).detail.get("watcher") or {}
    return name in watcher.get("pending", {}) or _is_unseen(name, watcher.get("folder"))


def _is_unseen(name: str, folder: str | None) -> bool:
    """The file is there, and the daemon has not said a word about it yet."""
    if folder is None or os.sep in name:
        return False
    path = Path(folder) / f"{name}.wasm"
    with contextlib.suppress(OSError):
        return path.is_file() and path.resolve().is_relative_to(Path(folder).resolve())
    return False


async def _terminate(process: AsyncProcess) -> None:
    """Ctrl-C ends the program, too; waits for its end, but not for ever."""
    with contextlib.suppress(PieError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await process.terminate("interrupted by its user")
            await process.outcome()
