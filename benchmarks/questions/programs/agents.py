"""Agents that act and go on with what they are told: the client's side.

A client sends the whole conversation each time; vLLM's prefix cache finds most of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.questions.programs.workload import Served, Words, Work


class React:
    name = "react"
    label = "ReACT, 8 tool calls"

    def work(self, words: Words) -> Work:
        return {
            "system": words.shared(512),
            "question": words.new(32),
            "turns": 8,
            "thought": 16,
            "answer": 32,
            "tool": words.tool,
        }

    async def client(self, served: Served, work: Work) -> int:
        said = work["system"] + work["question"]
        for _ in range(work["turns"]):
            said += await served.complete(said, work["thought"])
            said += await served.get(f"{work['tool']}?after={said[-1]}")
        answer = await served.complete(said, work["answer"])
        return int(work["turns"] * work["thought"] + len(answer))


class CodeAct:
    name = "codeact"
    label = "CodeACT, 8 runs of code"
    code = """
printed = []
seed = tokens[-1] + 1
for number in range(1600):
    seed = seed * 48271 % 2147483647
    if number % 50 == 0:
        printed.append(seed % 16384)
"""

    def work(self, words: Words) -> Work:
        return {
            "system": words.shared(512),
            "question": words.new(32),
            "turns": 8,
            "written": 24,
            "answer": 32,
            "code": self.code,
        }

    async def client(self, served: Served, work: Work) -> int:
        """Runs the code in its own process, which nobody should do with what a model wrote."""
        said = work["system"] + work["question"]
        program = compile(work["code"], "written", "exec")
        for _ in range(work["turns"]):
            names: dict[str, Any] = {"tokens": await served.complete(said, work["written"])}
            exec(program, names)
            said += names["tokens"] + names["printed"]
        answer = await served.complete(said, work["answer"])
        return int(work["turns"] * work["written"] + len(answer))


class Swarm:
    name = "swarm"
    label = "Swarm, 4 agents, 4 rounds"

    def work(self, words: Words) -> Work:
        return {
            "roles": [words.shared(192) for _ in range(4)],
            "task": words.new(64),
            "rounds": 4,
            "said": 16,
        }

    async def client(self, served: Served, work: Work) -> int:
        agents = [role + work["task"] for role in work["roles"]]
        for _ in range(work["rounds"]):
            asked = [served.complete(agent, work["said"]) for agent in agents]
            messages = await asyncio.gather(*asked)
            agents = [
                [*agent, *message, *_others(messages, place)]
                for place, (agent, message) in enumerate(zip(agents, messages, strict=True))
            ]
        return int(work["rounds"] * len(agents) * work["said"])


def _others(messages: list[list[int]], own: int) -> list[int]:
    return [token for place, message in enumerate(messages) if place != own for token in message]
