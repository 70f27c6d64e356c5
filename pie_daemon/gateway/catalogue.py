"""Model names: the loaded models, and every program that speaks the event contract."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pie_backend.tokenizer import Tokenizer
from pie_daemon.errors import PieError
from pie_daemon.gateway.errors import ApiError, invalid
from pie_daemon.gateway.request import Kind
from pie_daemon.host.context import Model, Models
from pie_daemon.runtime.programs import Program, ProgramInfo, ProgramStore

SERVED_BY: dict[Kind, str] = {"chat": "chat", "completion": "text-completion"}
"""The program that answers where the name is a model's own."""
_PATHS: dict[str, str] = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
_COMPLETION_TOKENS = 16
"""What OpenAI's own endpoint makes of a completion without `max_tokens`."""


@dataclass(frozen=True)
class Target:
    """What answers to a model name."""

    program: str
    digest: str
    tokenizer: Tokenizer
    """For the texts of tokens in logprobs."""
    eos_tokens: frozenset[int]
    defaults: dict[str, Any] = field(default_factory=dict)
    """What a request leaves out and the endpoint promises; programs have their own defaults."""


class Catalogue:
    def __init__(self, models: Models, programs: ProgramStore, folder: Path) -> None:
        """`folder`: where an operator puts programs, for the errors that ask for one."""
        self._models = models
        self._programs = programs
        self._folder = folder
        self._started_at = int(time.time())

    def listed(self, username: str) -> list[dict[str, Any]]:
        entries = [_entry(name, self._started_at, "pie", "model") for name in self._models.by_name]
        entries += [
            _entry(info.name, int(info.updated_at), info.namespace, "program")
            for info in self._programs.programs(username)
            if _speaks(info) and info.name not in self._models.by_name
        ]
        return list({entry["id"]: entry for entry in entries}.values())

    def entry(self, name: str, username: str) -> dict[str, Any]:
        for entry in self.listed(username):
            if entry["id"] == name:
                return entry
        raise self._unknown(name, username)

    def target(self, name: str, kind: Kind, username: str) -> Target:
        if (model := self._models.by_name.get(name)) is not None:
            return self._model(model, kind, username)
        return self._program(name, kind, username)

    def _model(self, model: Model, kind: Kind, username: str) -> Target:
        try:
            program = self._programs.resolve(username, SERVED_BY[kind])
        except PieError as error:
            raise self._not_served(model.name, SERVED_BY[kind], error) from None
        most = model.info.max_context if kind == "chat" else _COMPLETION_TOKENS
        defaults: dict[str, Any] = {"temperature": 1, "max_tokens": most}
        if model.name != self._models.default:
            defaults["model"] = model.name
        return _target(program, model, defaults)

    def _program(self, name: str, kind: Kind, username: str) -> Target:
        try:
            program = self._programs.resolve(username, name)
        except PieError as error:
            if error.code == "busy":
                raise _not_yet(error) from None
            raise self._unknown(name, username) from None
        contract = program.manifest.inferlet.contract
        if contract is None:
            raise self._unknown(name, username)
        if contract != kind:
            path = _PATHS[contract]
            raise invalid(f"the program {name!r} is asked at {path}", "model", "unsupported_value")
        return _target(program, self._models.get(None), {})

    def _not_served(self, model: str, program: str, error: PieError) -> ApiError:
        if error.code == "busy":
            return _not_yet(error)
        return ApiError(
            503,
            f"the model {model!r} is loaded, but the inferlet {program!r} that answers for it is "
            f"not there ({error.message}). On the daemon's machine, in a checkout of Pie: "
            f"make inferlets && cp build/inferlets/{program}.wasm {self._folder}/",
            param="model",
            code="program_missing",
        )

    def _unknown(self, name: str, username: str) -> ApiError:
        there = ", ".join(entry["id"] for entry in self.listed(username))
        return ApiError(
            404,
            f"no model is called {name[:80]!r}; there are: {there}. A program is a model name when "
            'its pie.toml has contract = "chat" or "completion"',
            param="model",
            code="model_not_found",
        )


def _not_yet(error: PieError) -> ApiError:
    """The program is being compiled."""
    return ApiError(503, error.message, param="model", code="busy", again=True)


def _speaks(info: ProgramInfo) -> bool:
    return info.state == "ready" and info.contract is not None


def _entry(name: str, created: int, owner: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner, "kind": kind}


def _target(program: Program, model: Model, defaults: dict[str, Any]) -> Target:
    eos = frozenset(model.info.eos_tokens)
    return Target(program.name, program.digest, model.tokenizer, eos, defaults)
