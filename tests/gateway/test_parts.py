"""The event contract as it is read, the catalogue of names, and who gets in."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pie_bakery.manifest import Identity, Manifest
from pie_daemon.errors import PieError
from pie_daemon.gateway.access import Access
from pie_daemon.gateway.catalogue import Catalogue
from pie_daemon.gateway.config import GatewayConfig, exposure
from pie_daemon.gateway.contract import Call, Delta, End, Reader
from pie_daemon.gateway.errors import ApiError
from pie_daemon.runtime.events import Event
from pie_daemon.runtime.programs import Program


def message(value: Any) -> Event:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Event(1, "message", "", data)


def outcome(result: Any = None, **fields: Any) -> Event:
    text = None if result is None else json.dumps(result)
    return Event(2, "outcome", "", json.dumps({"status": "ok", "result": text, **fields}).encode())


@pytest.mark.parametrize(
    "value",
    [
        b"not JSON",
        b"\xff",
        b"[" * 5000,
        1,
        {"type": "progress", "text": "x"},
        {"type": "delta"},
        {"type": "delta", "text": 1},
        {"type": "tool_call", "name": []},
    ],
)
def test_other_messages_are_passed_over(value: Any) -> None:
    """Whatever a program says to others, it is no part of the answer, and no failure."""
    assert Reader("p", 1000).read(message(value)) is None


def test_output_that_is_no_message_is_passed_over() -> None:
    """What a program prints or logs is for its author."""
    for kind in ("stdout", "stderr", "log", "blob"):
        assert Reader("p", 10).read(Event(1, cast(Any, kind), "", b"x" * 100)) is None


def test_a_result_completes_what_was_not_sent() -> None:
    """Text and calls that came as events are not repeated, the others follow at the end."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"text": "all", "tool_calls": [call], "finish_reason": "tool_calls"}
    silent, streaming = Reader("p", 1000), Reader("p", 1000)
    end = silent.read(outcome(result))
    assert isinstance(end, End)
    assert [Delta("all"), Call("f", "{}", "a")] == end.rest
    streaming.read(message({"type": "delta", "text": "all"}))
    end = streaming.read(outcome(result))
    assert isinstance(end, End)
    assert [Call("f", "{}", "a")] == end.rest


@pytest.mark.parametrize("result", [1, [], {"text": None}, {"text": 3}, {"tool_calls": [{}]}])
def test_a_result_of_another_shape_breaks_the_contract(result: Any) -> None:
    """The author reads what is wrong with it."""
    with pytest.raises(ApiError, match="event contract"):
        Reader("p", 1000).read(outcome(result))


@pytest.mark.parametrize(
    ("fields", "status", "again"),
    [
        ({"status": "error", "code": "invalid-argument", "message": "m"}, 400, False),
        ({"status": "error", "code": "denied", "message": "m"}, 403, False),
        ({"status": "error", "code": "program-error", "message": "m"}, 500, False),
        ({"status": "trapped", "code": "trap", "message": "m"}, 500, False),
        ({"status": "exceeded", "code": "quota", "message": "m"}, 429, False),
        ({"status": "exceeded", "code": "timeout", "message": "m"}, 504, False),
        ({"status": "cancelled", "code": "cancelled", "message": "m"}, 503, False),
        ({"status": "cancelled", "code": "interrupted", "message": "m"}, 503, True),
        ({"status": "error"}, 500, False),
    ],
)
def test_an_end_that_is_no_answer_has_its_status(
    fields: dict[str, Any], status: int, again: bool
) -> None:
    """And says whether to try again."""
    with pytest.raises(ApiError) as caught:
        Reader("p", 1000).read(outcome(**fields))
    assert (status, again) == (caught.value.status, caught.value.again)
    assert caught.value.message


class Programs:
    """A store with a few programs."""

    def __init__(self, error: PieError | None = None, **contracts: Any) -> None:
        self._error = error
        self._programs = {
            name: Program(name, "system", "d", 1, Manifest(Identity(contract=contract)))
            for name, contract in contracts.items()
        }

    def resolve(self, username: str, name: str) -> Program:
        if self._error is not None:
            raise self._error
        if name not in self._programs:
            raise PieError("not-found", "no such program")
        return self._programs[name]

    def programs(self, username: str) -> list[Any]:
        return [
            SimpleNamespace(
                name=name,
                namespace="system",
                updated_at=1.0,
                state="ready",
                contract=program.manifest.inferlet.contract,
            )
            for name, program in self._programs.items()
        ]


def catalogue(programs: Programs, *models: str) -> Catalogue:
    def model(name: str) -> Any:
        info = SimpleNamespace(eos_tokens=[2], max_context=99)
        return SimpleNamespace(name=name, info=info, tokenizer=None)

    by_name = {name: model(name) for name in models}
    found: Any = SimpleNamespace(
        by_name=by_name, default=models[0], get=lambda name: by_name[name or models[0]]
    )
    return Catalogue(found, cast(Any, programs), Path("/inferlets"))


def test_another_model_than_the_default_is_named_to_its_program() -> None:
    """The default one need not be; defaults are those of the endpoint."""
    names = catalogue(Programs(chat="chat"), "first", "second")
    assert {"temperature": 1, "max_tokens": 99} == names.target("first", "chat", "u").defaults
    assert "second" == names.target("second", "chat", "u").defaults["model"]
    assert {} == names.target("chat", "chat", "u").defaults


def test_a_model_wins_over_a_program_of_its_name() -> None:
    """It is listed once, and is the model."""
    names = catalogue(Programs(chat="chat", crumb="chat"), "crumb")
    assert ["model", "program"] == [one["kind"] for one in names.listed("u")]
    assert "chat" == names.target("crumb", "chat", "u").program


def test_a_program_that_is_being_compiled_is_asked_again() -> None:
    """503, not 404: it will be there."""
    names = catalogue(Programs(PieError("busy", "compiling")), "crumb")
    for name in ("crumb", "other"):
        with pytest.raises(ApiError) as caught:
            names.target(name, "chat", "u")
        assert (503, True) == (caught.value.status, caught.value.again)


def test_the_missing_program_is_named_with_the_way_to_get_it() -> None:
    """Ready to copy."""
    with pytest.raises(ApiError) as caught:
        catalogue(Programs(), "crumb").target("crumb", "completion", "u")
    assert "cp build/inferlets/text-completion.wasm /inferlets/" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "is_open"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "127.9.9.9"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "localhost.example"}, True),
        ({"host": "0.0.0.0", "insecure": True}, False),
        ({"host": "0.0.0.0", "api_keys": ("a:0123456789abcdef",)}, False),
        ({"host": "0.0.0.0", "enabled": False}, False),
    ],
)
def test_what_is_open_to_others_without_a_key(fields: dict[str, Any], is_open: bool) -> None:
    """Such a configuration is refused."""
    assert is_open == (exposure(GatewayConfig(**{"enabled": True, **fields})) is not None)


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Basic x", "Bearer \udcff", "bearer é"])
def test_odd_authorization_is_refused(given: str) -> None:
    """Also when it is no ASCII."""
    access = Access(GatewayConfig(api_keys=("a:0123456789abcdef",)))
    with pytest.raises(ApiError) as caught:
        access.user({"authorization": given})
    assert 401 == caught.value.status
    assert "a" == access.user({"authorization": "bearer 0123456789abcdef"})
