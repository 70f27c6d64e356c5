"""Tool calls: a question, a list of one to four tools, the call as JSON, and the way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from training import words
from training.arithmetic import addition, pair_key
from training.facts import fact
from training.sample import Sample, Tool, Turn, call_text, is_held_out

SYSTEMS = ("You are a helpful assistant.", "Use the tools when they help.", "You are an agent.")


class Parameter(msgspec.Struct, frozen=True):
    names: tuple[str, ...]  # it goes by
    type: str  # of JSON
    value: str  # kind of value, a key of VALUES


class Skill(msgspec.Struct, frozen=True):
    """One kind of tool: names it goes by, what is asked, and how its result is told."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    questions: tuple[str, ...]
    result: str
    answer: str
    parameters: tuple[Parameter, ...]


class Skills(msgspec.Struct, frozen=True):
    skill: tuple[Skill, ...]


TEXT = Path(__file__).with_name("skills.toml").read_text(encoding="utf-8")
SKILLS = msgspec.toml.decode(TEXT, type=Skills).skill
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
CURRENCIES = ("euros", "pounds", "yen", "francs", "pesos", "rupees", "crowns")
LANGUAGES = ("French", "German", "Spanish", "Italian", "Polish", "Dutch", "Greek", "Finnish")
ROOMS = ("kitchen", "garden", "bathroom", "bedroom", "hall", "office", "garage", "cellar")
SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy")
VALUES: dict[str, Callable[[Random], Any]] = {
    "city": lambda rng: rng.choice(words.CITIES),
    "name": lambda rng: rng.choice(words.NAMES),
    "noun": lambda rng: rng.choice(words.NOUNS),
    "item": lambda rng: rng.choice(words.ITEMS),
    "day": lambda rng: rng.choice(DAYS),
    "currency": lambda rng: rng.choice(CURRENCIES),
    "language": lambda rng: rng.choice(LANGUAGES),
    "room": lambda rng: rng.choice(ROOMS),
    "file": lambda rng: f"{rng.choice(words.NOUNS)}.{rng.choice(('txt', 'md', 'json', 'csv'))}",
    "number": lambda rng: rng.randint(1, 999 if rng.random() < 0.5 else 99),
    "small": lambda rng: rng.randint(2, 20),
}


@dataclass(frozen=True)
class Call:
    skill: Skill
    tool: Tool
    values: list[Any]

    def arguments(self) -> dict[str, Any]:
        return dict(zip(self.tool.parameters, self.values, strict=True))


def as_tool(rng: Random, skill: Skill) -> Tool:
    """The skill under one of its names, with names for its parameters."""
    parameters = {rng.choice(entry.names): entry.type for entry in skill.parameters}
    return Tool(rng.choice(skill.names), rng.choice(skill.descriptions), parameters)


def _draw_call(rng: Random, skill: Skill) -> Call:
    while True:
        tool = as_tool(rng, skill)
        values = [VALUES[entry.value](rng) for entry in skill.parameters]
        clash = len(tool.parameters) < len(skill.parameters) or len(set(values)) < len(values)
        if not clash and not _tells_held_out_sum(values):
            return Call(skill, tool, values)


def _tells_held_out_sum(values: list[Any]) -> bool:
    numbers = [value for value in values if isinstance(value, int)]
    return len(numbers) == 2 and is_held_out(pair_key(*numbers))


def _key(call: Call, question: str, tools: tuple[Tool, ...]) -> str:
    return f"{question}|{','.join(sorted(tool.name for tool in tools))}"


def _with_others(rng: Random, chosen: list[Tool], skills: list[Skill]) -> tuple[Tool, ...]:
    others = rng.sample([skill for skill in SKILLS if skill not in skills], rng.randint(0, 3))
    tools = chosen + [as_tool(rng, skill) for skill in others]
    rng.shuffle(tools)
    return tuple(tools)


def _system(rng: Random) -> list[Turn]:
    return [Turn("system", rng.choice(SYSTEMS))] if rng.random() < 0.3 else []


def _asked_call(rng: Random, held_out: bool) -> tuple[Call, str, tuple[Tool, ...], str]:
    while True:
        call = _draw_call(rng, rng.choice(SKILLS))
        question = rng.choice(call.skill.questions).format(*call.values)
        tools = _with_others(rng, [call.tool], [call.skill])
        key = _key(call, question, tools)
        if is_held_out(key) == held_out:
            return call, question, tools, key


def tool_call(rng: Random, held_out: bool, raw: bool) -> Sample:
    """A question that one of the tools answers; held out by question and tool names."""
    call, question, tools, key = _asked_call(rng, held_out)
    answer = call_text(call.tool.name, call.arguments())
    turns = (*_system(rng), Turn("user", question), Turn("assistant", answer))
    return Sample("tool_call", key, turns, tools)


def _results(rng: Random, values: list[Any]) -> dict[str, Any]:
    drawn: dict[str, Any] = {"r0": rng.randint(10, 40), "r1": rng.randint(10, 59)}
    if len(values) == 2 and all(isinstance(value, int) for value in values):
        drawn |= {"r2": values[0] + values[1], "r3": values[0] * values[1]}
    made = words.pseudo_word([rng.randrange(64), rng.randrange(64)])
    return drawn | {"sky": rng.choice(SKIES), "made": made}


def react(rng: Random, held_out: bool, raw: bool) -> Sample:
    """Question, call, response, answer in one sentence that uses the response."""
    call, question, tools, key = _asked_call(rng, held_out)
    results = _results(rng, call.values)
    turns = (
        *_system(rng),
        Turn("user", question),
        Turn("assistant", call_text(call.tool.name, call.arguments())),
        Turn("tool", call.skill.result.format(*call.values, **results)),
        Turn("assistant", call.skill.answer.format(*call.values, **results)),
    )
    return Sample("react", key, turns, tools)


def no_tool(rng: Random, held_out: bool, raw: bool) -> Sample:
    """Tools are offered, none of them fits: answer directly."""
    plain = (addition if rng.random() < 0.5 else fact)(rng, held_out, False)
    numbers = [skill for skill in SKILLS if skill.result in ("{r2}", "{r3}")]
    others = rng.sample([skill for skill in SKILLS if skill not in numbers], rng.randint(1, 3))
    tools = tuple(as_tool(rng, skill) for skill in others)
    key = f"{plain.key}|{','.join(tool.name for tool in tools)}"
    return Sample("no_tool", key, (*_system(rng), *plain.turns), tools)


def openai_tools(sample: Sample) -> list[dict[str, Any]]:
    return [tool.as_openai() for tool in sample.tools]


def parse_call(text: str) -> dict[str, Any]:
    """The JSON between the call's tags."""
    body = text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
    call: dict[str, Any] = json.loads(body)
    return call
