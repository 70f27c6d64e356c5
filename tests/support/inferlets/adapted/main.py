"""Generates with adapters: `prompts`, each with the adapter of that name or none, side by side.

`{"prompts": [[ids, name or null], ...], "max_tokens": n}` gives the tokens of each; with
`refusals`, a list of names, the code and message that opening each gives; with `turns`, a list of
names, the tokens of one context on which each adapter goes on in turn.
"""

from typing import Any

from inferlet import Adapter, Chat, Context, Model, PieError

GREEDY: Any = {"temperature": 0, "ignore_eos": True, "chunk_tokens": 0}


def run(input: dict[str, Any]) -> dict[str, Any]:
    model = Model.open()
    names = {name for _, name in input.get("prompts", [])} | set(input.get("turns", []))
    adapters = {name: Adapter.open(model, name) for name in names - {None}}
    adapters[None] = None
    result = {
        "tokens": side_by_side(model, input.get("prompts", []), adapters, input["max_tokens"]),
        "turns": in_turn(model, input.get("turns", []), adapters, input["max_tokens"]),
        "refusals": [refusal(model, name) for name in input.get("refusals", [])],
        "chats": [chat(model, adapter) for adapter in adapters.values()],
    }
    for adapter in adapters.values():
        if adapter is not None:
            adapter.close()
    return result


def side_by_side(
    model: Model, prompts: list[Any], adapters: dict[Any, Any], max_tokens: int
) -> list[list[int]]:
    started = []
    for tokens, name in prompts:
        context = Context(model)
        context.append(tokens)
        started.append(context.generate(adapter=adapters[name], max_tokens=max_tokens, **GREEDY))
    return [generation.collect().tokens for generation in started]


def in_turn(model: Model, names: list[Any], adapters: dict[Any, Any], max_tokens: int) -> list[int]:
    with Context(model) as context:
        context.append([5, 6, 7])
        for name in names:
            context.generate(adapter=adapters[name], max_tokens=max_tokens, **GREEDY).collect()
        return context.tokens()


def refusal(model: Model, name: str) -> list[str]:
    try:
        with Adapter.open(model, name):
            return ["ok", ""]
    except PieError as error:
        return [error.code, error.message]


def chat(model: Model, adapter: Adapter | None) -> str:
    return Chat(model, adapter=adapter).user("hi").reply(max_tokens=6, temperature=0).text
