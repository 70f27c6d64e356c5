"""`pie status`: what the daemon holds and how fast it goes, at a glance."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pie_client import wire
from pie_client.aio import AsyncClient
from pie_daemon.cli import exits
from pie_daemon.cli.instances import age, with_client
from pie_daemon.cli.terminal import print_json, write
from pie_daemon.scheduler.stats import WorkerStats

_BAR_WIDTH = 40
_CLEAR_SCREEN = "\x1b[H\x1b[2J"


def show_status(*, as_json: bool, watch_s: float | None) -> int:
    """Exit code 1 when a model does not compute."""

    async def work(client: AsyncClient) -> int:
        while True:
            status = await client.status()
            _print(status, as_json=as_json, clear=watch_s is not None)
            if watch_s is None:
                return exits.FAILED if any(troubles(status)) else exits.OK
            await asyncio.sleep(watch_s)

    return with_client(work)


def _print(status: wire.Status, *, as_json: bool, clear: bool) -> None:
    if as_json:
        print_json(status)
        sys.stdout.flush()
        return
    if clear and sys.stdout.isatty():
        sys.stdout.write(_CLEAR_SCREEN)
    write("\n".join(_lines(status)) + "\n")


def _lines(status: wire.Status) -> Iterator[str]:
    up = age(time.time() - status.started_at)
    yield (
        f"{status.server}, process {status.pid}, up {up}: {status.sessions} sessions, "
        f"{status.instances} instances, {status.programs} programs"
    )
    yield from (f"  {endpoint}" for endpoint in status.endpoints)
    for name, model in status.detail.get("models", {}).items():
        yield ""
        yield from _model_lines(name, model["info"], model["scheduler"])
    if watcher := status.detail.get("watcher"):
        yield ""
        yield f"folder {watcher['folder']}: {watcher['error'] or watcher['mode']}"


def _model_lines(name: str, info: Mapping[str, Any], stats: Mapping[str, Any]) -> Iterator[str]:
    kernels = f" ({info['kernels']})" if info["kernels"] else ""
    ranks = f", {info['tensor_parallel']} ranks" if info["tensor_parallel"] > 1 else ""
    yield f"{name}: {info['architecture']}, {info['dtype']} on {info['device']}{ranks}{kernels}"
    if info.get("device_reason"):
        yield f"  device    {info['device_reason']}"
    yield f"  pages     {_bar(stats)}"
    yield f"            {_pages(stats)}"
    yield (
        f"  requests  {stats['running_requests']} running, {stats['waiting_requests']} waiting; "
        f"last batch {stats['last_batch_rows']} rows, {stats['last_batch_tokens']} tokens"
    )
    if stats["suspensions"]:
        yield f"  pressure  {_pressure(stats)}"
    yield (
        f"  tokens/s  {stats['generated_tokens_per_s']:.0f} generated, "
        f"{stats['computed_tokens_per_s']:.0f} computed"
    )
    wanted = stats["found_tokens"] / stats["prefix_hit_rate"] if stats["prefix_hit_rate"] else 0
    yield (
        f"  prefixes  {stats['prefix_hit_rate']:.0%} found "
        f"({stats['found_tokens']} of {wanted:.0f} prompt tokens)"
    )
    if stats["drafted_tokens"]:
        yield (
            f"  guesses   {stats['draft_acceptance']:.0%} of {stats['drafted_tokens']} tokens "
            "came true"
        )
    worker = msgspec.convert(stats.get("worker", {}), WorkerStats)
    if worker.deaths:
        yield (
            f"  worker    died {worker.deaths} times, last of: {worker.last_cause}; the last pause "
            f"was {worker.last_pause_s:.1f} s"
        )
    for number, one in enumerate(stats["replicas"]):
        yield f"  replica {number} {_replica(one)}"
    for trouble in _troubles(stats):
        yield f"  BROKEN    {trouble}"


def _replica(stats: Mapping[str, Any]) -> str:
    return (
        f"{stats['contexts']} contexts, {stats['running_requests']} running, "
        f"{stats['waiting_requests']} waiting; "
        f"{stats['num_pages'] - stats['free_pages']} pages held, {stats['cached_pages']} cached; "
        f"{stats['generated_tokens_per_s']:.0f} tokens/s, "
        f"prefixes {stats['prefix_hit_rate']:.0%} found"
    )


def _pages(stats: Mapping[str, Any]) -> str:
    total, free, cached = stats["num_pages"], stats["free_pages"], stats["cached_pages"]
    return f"{total - free} held (#), {cached} cached (+), {free - cached} empty (.) of {total}"


def _pressure(stats: Mapping[str, Any]) -> str:
    return (
        f"{stats['suspended_contexts']} of {stats['contexts']} contexts suspended, "
        f"{stats['used_host_pages']} of {stats['host_pages']} host pages used; so far "
        f"{stats['preemptions']} generations gave way, "
        f"{stats['recomputed_tokens']} tokens computed again"
    )


def _bar(stats: Mapping[str, Any]) -> str:
    """A line of the pool: held, cached, empty."""
    total = max(stats["num_pages"], 1)
    held = _cells(stats["num_pages"] - stats["free_pages"], total)
    cached = min(_cells(stats["cached_pages"], total), _BAR_WIDTH - held)
    return f"[{'#' * held}{'+' * cached}{'.' * (_BAR_WIDTH - held - cached)}]"


def _cells(count: int, total: int) -> int:
    """Rounded up, so that a little is never shown as nothing."""
    return -(-count * _BAR_WIDTH // total)


def troubles(status: wire.Status) -> Iterator[str]:
    """Of all models."""
    for name, model in status.detail.get("models", {}).items():
        yield from (f"{name}: {trouble}" for trouble in _troubles(model["scheduler"]))


def _troubles(stats: Mapping[str, Any]) -> Iterator[str]:
    """Why the model does not compute at the moment, or not rightly."""
    if stats.get("replicas"):
        for number, one in enumerate(stats["replicas"]):
            yield from (f"replica {number}: {trouble}" for trouble in _troubles(one))
        return
    worker = msgspec.convert(stats.get("worker", {}), WorkerStats)
    yield from filter(None, (stats["failure"] or worker.trouble, stats["integrity_error"]))
