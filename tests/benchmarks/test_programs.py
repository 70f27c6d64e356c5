"""Programs that are compared with clients: both sides do the same work, near and far."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from benchmarks.model import SMALL
from benchmarks.questions.programs import delay, workload
from benchmarks.questions.programs.decoding import JsonSchema
from benchmarks.questions.programs.question import STAGES, Programs, _answer
from benchmarks.questions.programs.sides import PROGRAM
from benchmarks.questions.programs.stages import Run
from benchmarks.questions.programs.tools import tool_server
from benchmarks.questions.programs.workload import Words, Work, Workload
from pie_backend.dummy import Vocabulary
from pie_daemon.runtime.config import LimitsConfig
from support.rig import Letters, Rig

WORKLOADS = [workload for stage in STAGES for workload in stage.workloads]


class Bytes(Letters):
    """A byte is a token, in both directions."""

    vocabulary = Vocabulary(size=SMALL.vocab)

    def token_bytes(self, token: int) -> bytes:
        return bytes([token % 256])


class Fake:
    """A server that draws as many tokens as it is asked for, and tools that are real."""

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []

    async def complete(self, prompt: list[int], max_tokens: int, **more: Any) -> list[int]:
        self.prompts.append(prompt)
        if "structured_outputs" in more:
            return list(more["structured_outputs"]["choice"][0].encode())
        return [len(self.prompts)] * max_tokens

    async def get(self, url: str) -> list[int]:
        async with httpx.AsyncClient() as http:
            tokens: list[int] = (await http.get(url)).json()
            return tokens

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a token is the next one, as if a model had been made that says so."""
    following = [(token + 1) % SMALL.vocab for token in range(SMALL.vocab)]
    monkeypatch.setattr(workload, "following", lambda: following)


@pytest.fixture(scope="module")
def tool() -> Iterator[str]:
    with tool_server() as url:
        yield url


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    limits = LimitsConfig(http_hosts=("127.0.0.1:*",))
    rig = Rig(tmp_path_factory.mktemp("rig"), num_pages=1024, limits=limits, letters=Bytes())
    rig.install(PROGRAM)
    yield rig
    rig.close()


def work_of(one: Workload, tool: str = "") -> Work:
    return one.work(Words(Random("common"), Random("own"), tool))


@pytest.mark.parametrize("one", WORKLOADS, ids=lambda one: one.name)
def test_a_program_has_as_many_tokens_drawn_as_its_client(
    one: Workload, rig: Rig, tool: str
) -> None:
    """Neither side gets by with less. Where a grammar decides, it decides how many."""
    work = work_of(one, tool)
    drawn = rig.run(PROGRAM, program=one.name, **work)["num_tokens"]

    if isinstance(one, JsonSchema):
        values = work["schema"]["properties"].values()
        assert drawn in range(6 * len('low"'), 6 * len('replacement"'))
        assert 6 == len(values)
    else:
        assert asyncio.run(one.client(Fake(), work)) == drawn


@pytest.mark.parametrize("one", WORKLOADS, ids=lambda one: one.name)
def test_agents_share_no_more_than_they_say(one: Workload) -> None:
    """Two agents of one run have different work, or the second would be found in a cache."""
    works = [one.work(Words(Random("common"), Random(agent))) for agent in range(2)]

    assert works[0] != works[1]


def test_what_goes_a_long_way_arrives_later_whole_and_in_order() -> None:
    """Each direction takes its time once, however much goes through it."""
    sent = [bytes([number]) * 70_000 for number in range(4)]

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async def there_and_back() -> tuple[bytes, float]:
        loop = asyncio.get_running_loop()
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            async with delay.to_port(server.sockets[0].getsockname()[1], 0.02) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                begun = loop.time()
                writer.writelines(sent)
                writer.write_eof()
                received = await reader.read()
                writer.close()
                return received, loop.time() - begun

    received, took_s = asyncio.run(there_and_back())

    assert b"".join(sent) == received
    assert took_s >= 0.04


def test_no_delay_is_no_detour(tmp_path: Path) -> None:
    """What is compared with 0 ms goes straight to the server."""

    async def ways() -> tuple[int, Path]:
        async with delay.to_port(80, 0) as port, delay.to_path(tmp_path, 0) as path:
            return port, path

    assert (80, tmp_path) == asyncio.run(ways())


def test_a_workload_is_held_to_its_least_favourable_case() -> None:
    """Ahead in three cases and behind in the fourth is not ahead."""
    case = {
        "Pie, 0 ms": [Run(2.0, 8)],
        "Pie, 20 ms": [Run(2.0, 8)],
        "vLLM, 0 ms": [Run(2.2, 8)],
        "vLLM, 20 ms": [Run(8.0, 8)],
    }
    answer = _answer({"Thinking": {1: case}})

    assert ["Thinking", "2.00 / 2.20 (1.10x)", "2.00 / 8.00 (4.00x)"] == answer.rows[0]
    assert [(1.1, False), (4.0, True)] == [
        (round(target.result or 0, 2), target.met) for target in answer.targets
    ]


def test_sides_that_drew_different_numbers_of_tokens_are_said() -> None:
    """Nobody has to believe that less work was as much."""
    case = {"Pie, 0 ms": [Run(2.0, 8)], "Pie, 20 ms": [Run(2.0, 8)]}
    same = case | {"vLLM, 0 ms": [Run(2.2, 8)], "vLLM, 20 ms": [Run(8.0, 8)]}
    more = case | {"vLLM, 0 ms": [Run(2.2, 9)], "vLLM, 20 ms": [Run(8.0, 8)]}
    notes = _answer({"Same": {1: same}, "More": {1: more}}).notes

    assert ["More: Pie drew 16 tokens, vLLM 17, one agent, all rounds."] == [
        note for note in notes if " drew " in note
    ]


def test_without_vllm_there_are_seconds_and_nothing_is_promised() -> None:
    """A quick run says how long the programs took."""
    answer = _answer({"Thinking": {1: {"Pie, 0 ms": [Run(2.0, 8)], "Pie, 20 ms": [Run(3.0, 8)]}}})

    assert ["Thinking", "2.00", "3.00"] == answer.rows[0]
    assert {None} == {target.met for target in answer.targets}
    assert "programs" == Programs.name
    assert json.dumps(answer.measured)
