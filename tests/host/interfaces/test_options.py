"""The options of `generate`."""

import json
from pathlib import Path

import msgspec
import pytest

from pie_daemon.errors import PieError
from pie_daemon.host.interfaces import options
from pie_daemon.host.interfaces.options import GenerateOptions, parse_options

SCHEMA = Path(__file__).parents[3] / "sdk/wit/schemas/generate.json"


def test_no_options_are_the_defaults() -> None:
    """An empty text and an empty object mean the same."""
    assert GenerateOptions() == parse_options("{}") == parse_options("")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("{", "invalid-argument", "truncated"),
        ("[]", "invalid-argument", "object"),
        ('{"temprature": 1}', "invalid-argument", "'temprature'"),
        ('{"top_p": 0}', "invalid-argument", "top_p"),
        ('{"max_tokens": 0}', "invalid-argument", "max_tokens"),
        ('{"stop_strings": [""]}', "invalid-argument", "stop_strings"),
        ('{"logit_bias": {}}', "unsupported", "logit_bias"),
    ],
)
def test_what_is_wrong_is_named(text: str, code: str, words: str) -> None:
    """Unknown keys and bad values are invalid; known keys of later versions are unsupported."""
    with pytest.raises(PieError) as refused:
        parse_options(text)
    assert code == refused.value.code
    assert words in refused.value.message.lower()


def test_the_published_schema_and_the_host_agree() -> None:
    """Every key of the schema is accepted or refused by name, with the same default."""
    properties = json.loads(SCHEMA.read_text())["properties"]
    fields = {field.name: field for field in msgspec.structs.fields(GenerateOptions)}

    assert set(properties) == set(fields) | options._LATER
    for name, field in fields.items():
        given = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        assert properties[name].get("default") == given, name
