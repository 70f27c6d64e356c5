"""Agents that act and go on with what they are told."""

from typing import Any

from drawing import begun, draw, draw_all

from inferlet import http


def react(
    system: list[int], question: list[int], turns: int, thought: int, answer: int, tool: str
) -> int:
    """Thinks, asks a tool over HTTP, reads its answer; then answers."""
    context = begun(system, question)
    for _ in range(turns):
        action = draw(context, thought)
        context.append(http.get(f"{tool}?after={action[-1]}").raise_for_status().json())
    return turns * thought + len(draw(context, answer))


def codeact(
    system: list[int], question: list[int], turns: int, written: int, answer: int, code: str
) -> int:
    """Writes code, runs it here, reads what it printed; then answers.

    A random model writes nothing that runs, so what runs is `code`, on the tokens that were drawn.
    """
    context = begun(system, question)
    program = compile(code, "written", "exec")
    for _ in range(turns):
        names: dict[str, Any] = {"tokens": draw(context, written)}
        exec(program, names)
        context.append(names["printed"])
    return turns * written + len(draw(context, answer))


def swarm(roles: list[list[int]], task: list[int], rounds: int, said: int) -> int:
    """Agents with roles of their own speak at the same time; then each reads all others."""
    agents = [begun(role, task) for role in roles]
    for _ in range(rounds):
        messages = draw_all(agents, said)
        for agent in agents:
            for other, message in zip(agents, messages, strict=True):
                if other is not agent:
                    agent.append(message)
    return rounds * len(agents) * said
