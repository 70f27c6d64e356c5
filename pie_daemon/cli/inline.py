"""A daemon for one command, in this process, where no other one runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from pie_client import paths
from pie_client.aio import AsyncClient
from pie_daemon import log
from pie_daemon.cli.exits import UsageError
from pie_daemon.config import PieConfig, load
from pie_daemon.errors import PieError
from pie_daemon.gateway.config import GatewayConfig
from pie_daemon.listener.config import ListenerConfig

# A program that outlives its command is nobody's.
_DRAIN_S = 0.5


@asynccontextmanager
async def inline_client(name: str | None, overrides: Sequence[str]) -> AsyncIterator[AsyncClient]:
    """Boots, connects, and stops again. Only the named program of the inferlet folder is there.

    Compiled code is kept where the real daemon keeps it; everything else of this one vanishes
    with it.
    """
    config = load(overrides).config
    with tempfile.TemporaryDirectory(prefix="pie-") as scratch:
        folder = Path(scratch) / "inferlets"
        folder.mkdir()
        if name is not None:
            copy_program(Path(config.watcher.dir or ""), name, folder)
        async with _daemon(_cut_down(config, folder), Path(scratch)) as endpoint:
            async with await AsyncClient.connect(endpoint, name="pie run") as client:
                yield client


@asynccontextmanager
async def _daemon(config: PieConfig, scratch: Path) -> AsyncIterator[str]:
    from pie_daemon.daemon import Daemon, Paths

    log.configure(config.logging)
    daemon = Daemon(config, Paths(state=_state(scratch), runtime=scratch))
    try:
        await daemon.start()
        yield daemon.endpoints[0]
    finally:
        await daemon.stop()


def _state(scratch: Path) -> Path:
    """A state folder of its own, with the cache of the real one: compiling takes seconds."""
    cache, state = paths.state_dir() / "compiled", scratch / "state"
    cache.mkdir(parents=True, exist_ok=True)
    state.mkdir()
    (state / "compiled").symlink_to(cache)
    return state


def _cut_down(config: PieConfig, folder: Path) -> PieConfig:
    replace = msgspec.structs.replace
    return replace(
        config,
        backend=replace(config.backend, placement="inline", replicas=1),
        listener=ListenerConfig(),
        gateway=GatewayConfig(),
        watcher=replace(config.watcher, dir=str(folder), mode="poll"),
        runtime=replace(config.runtime, drain_s=_DRAIN_S),
        logging=replace(config.logging, level="error"),
    )


def copy_program(source: Path, name: str, target: Path) -> None:
    """`NAME.wasm` with the manifest beside it; PieError with the names there are."""
    program = source / f"{name}.wasm"
    if "/" in name or not program.is_file():
        there = sorted(path.stem for path in source.glob("*.wasm"))
        raise PieError(
            "not-found",
            f"no program is called {name!r} in {source}; "
            f"there are: {', '.join(there) or 'none'} (or give the path of a .wasm file)",
        )
    for path in (program, program.with_suffix(".toml")):
        if path.is_file():
            # With its old time, so that it need not settle.
            shutil.copy2(path, target)


def check_overrides(overrides: Sequence[str], daemon_runs: bool) -> None:
    if overrides and daemon_runs:
        raise UsageError("--set is for a run without a daemon; one is running here")
