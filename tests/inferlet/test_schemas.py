"""The option schemas beside the WIT, the SDK and the host say the same."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec
import pytest

from inferlet import GenerateOptions, SampleOptions, runtime
from pie_daemon.host.interfaces.options import GenerateOptions as HostOptions
from pie_daemon.host.interfaces.sample_options import KEYS
from support.guests import REPOSITORY


def schema(name: str) -> dict[str, Any]:
    path = REPOSITORY / "sdk/wit/schemas" / f"{name}.json"
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def supported(properties: dict[str, Any]) -> set[str]:
    return {key for key, value in properties.items() if "x-since" not in value}


def test_the_sdk_offers_exactly_what_the_schema_marks_as_supported() -> None:
    """An author finds no option that the engine refuses."""
    assert supported(schema("generate")["properties"]) == set(GenerateOptions.__annotations__)


def test_the_host_takes_the_schemas_keys_and_defaults() -> None:
    """What is documented is what happens."""
    properties = schema("generate")["properties"]
    fields = {field.name: field for field in msgspec.structs.fields(HostOptions)}
    assert supported(properties) == set(fields)
    for name, field in fields.items():
        default = (
            field.default_factory()
            if field.default is msgspec.NODEFAULT and callable(field.default_factory)
            else field.default
        )
        assert properties[name].get("default") == default, name


def test_the_options_of_samples_are_their_schema() -> None:
    """On both sides of the border, with the ranges and defaults of `generate`."""
    properties = schema("sample")["properties"]
    assert set(properties) == KEYS == set(SampleOptions.__annotations__)
    shared = schema("generate")["properties"]
    for name in properties.keys() - {"draw"}:
        described = {"description": properties[name]["description"]}
        assert properties[name] == {**shared[name], **described}, name


def test_launch_takes_the_schemas_budgets() -> None:
    """The keyword arguments of `runtime.launch` are the keys."""
    given = set(inspect.signature(runtime.launch).parameters) - {"program", "input"}
    assert set(schema("launch")["properties"]) == given


@pytest.mark.parametrize("name", ["generate", "launch", "sample"])
def test_every_key_is_described(name: str) -> None:
    """A schema is documentation first."""
    assert all(value.get("description") for value in schema(name)["properties"].values())
