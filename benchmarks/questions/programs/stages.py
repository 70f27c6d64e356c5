"""What is measured on which model: everything that shares a daemon and a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.peers.server import Server
from benchmarks.peers.worker import dtype
from benchmarks.questions.programs.sides import PROGRAM, Clients, Launches, Side
from benchmarks.questions.programs.workload import Words, Work, Workload
from benchmarks.rounds import take_turns
from support.daemon import DaemonProcess

PIE, VLLM = "Pie", "vLLM"
DELAYS_MS = (0, 20)
"""Round trips that are put between client and server."""
KV_PAGES = 6144
VLLM_SETTINGS: dict[str, Any] = {
    "dtype": dtype(),
    "enable_prefix_caching": True,
    "block_size": 32,
    "max_model_len": 2048,
    "max_num_seqs": 128,
    "max_num_batched_tokens": 2048,
    "disable_log_stats": True,
    "disable_uvicorn_access_log": True,
}


class Contender(NamedTuple):
    side: str
    delay_ms: int

    def __str__(self) -> str:
        return f"{self.side}, {self.delay_ms} ms"


class Run(NamedTuple):
    seconds: float
    """From the first request to the last answer."""
    num_tokens: int
    """Drawn by all agents."""

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s, {self.num_tokens} tokens"


Samples = dict[str, list[Run]]
"""By contender."""


@dataclass(frozen=True, slots=True)
class Stage:
    model: Callable[[], Path]
    workloads: Sequence[Workload]
    vllm: dict[str, Any] = field(default_factory=dict)
    """Settings of the server beyond the usual ones."""


class Contest:
    """One stage with everything that it needs, running. Use `with`."""

    def __init__(self, stage: Stage, tool: str, with_vllm: bool) -> None:
        self._stage = stage
        self._tool = tool
        self._with_vllm = with_vllm
        self._stack = AsyncExitStack()
        self._sides: dict[Contender, Side] = {}
        self._warm: set[Side] = set()

    def __enter__(self) -> Contest:
        self._runner = asyncio.Runner()
        self._runner.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def _start(self) -> None:
        model = self._stage.model()
        enter = self._stack.enter_async_context
        if self._with_vllm:
            server = self._stack.enter_context(
                closing(Server(model, VLLM_SETTINGS | self._stage.vllm))
            )
            for delay_ms in DELAYS_MS:
                clients = Clients.at(server, model, delay_ms / 2000)
                self._sides[Contender(VLLM, delay_ms)] = await enter(clients)
        daemon = started(model)
        self._stack.callback(daemon.remove)
        self._stack.callback(daemon.stop)
        for delay_ms in DELAYS_MS:
            launches = Launches.at(daemon, delay_ms / 2000)
            self._sides[Contender(PIE, delay_ms)] = await enter(launches)

    def measure(self, workload: Workload, num_agents: int, rounds: int) -> Samples:
        turns = {
            str(contender): partial(self._turn, workload, num_agents, side, place)
            for place, (contender, side) in enumerate(self._sides.items())
        }
        return take_turns(turns, rounds, f"{workload.label}, {num_agents} at once")

    def _turn(
        self, workload: Workload, num_agents: int, side: Side, place: int, number: int
    ) -> Run:
        if number < 0 and side in self._warm:
            return Run(0.0, 0)
        self._warm.add(side)
        seed = f"{workload.name} {num_agents} {place} {number}"
        works = [
            workload.work(Words(Random(seed), Random(f"{seed} {agent}"), self._tool))
            for agent in range(num_agents)
        ]
        return self._runner.run(_timed(side, workload, works))


def started(model: Path) -> DaemonProcess:
    daemon = DaemonProcess(
        f"model.path={model}",
        f"backend.kv_pages={KV_PAGES}",
        "limits.http_hosts=['127.0.0.1:*']",
    ).start()
    daemon.install(PROGRAM)
    return daemon


async def _timed(side: Side, workload: Workload, works: Sequence[Work]) -> Run:
    begun = perf_counter()
    drawn = await side.run(workload, works)
    return Run(perf_counter() - begun, sum(drawn))
