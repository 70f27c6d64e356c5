"""From words on the command line to the input of a program."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from pie_daemon.cli.arguments import infer, parse_options, program_input
from pie_daemon.cli.exits import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1", -1),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("null", None),
        ('["a", 1]', ["a", 1]),
        ('{"a": 1}', {"a": 1}),
        ('"5"', "5"),
        ("hello world", "hello world"),
        ("007", "007"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("True", "True"),
        (" 5", " 5"),
        ("", ""),
        ("日本", "日本"),
        ("[1", "[1"),
    ],
)
def test_values_are_json_where_they_can_be(text: str, value: Any) -> None:
    """What is JSON is taken as such, everything else is text."""
    found = infer(text)

    assert (value, type(value)) == (found, type(found))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {}),
        (["--max-tokens", "5"], {"max_tokens": 5}),
        (["--max-tokens=5", "--prompt", "a b"], {"max_tokens": 5, "prompt": "a b"}),
        (["--stream", "--seed", "-1"], {"stream": True, "seed": -1}),
        (["--prompt=--odd", "--stream"], {"prompt": "--odd", "stream": True}),
        (["--stop", "a", "--stop", "b", "--stop", "c"], {"stop": ["a", "b", "c"]}),
        (["--prompt", "-x"], {"prompt": "-x"}),
        (["--text=a=b\nc"], {"text": "a=b\nc"}),
    ],
)
def test_options_become_keys(words: list[str], options: dict[str, Any]) -> None:
    """Dashes become underscores; a name alone is true; a repeated one is a list."""
    assert options == parse_options(words)


@pytest.mark.parametrize("words", [["hello"], ["--a", "1", "2"], ["-p", "x"], ["--1"], ["--"]])
def test_words_without_a_name_are_refused(words: list[str]) -> None:
    """A value that belongs to no key is a mistake, not something to drop."""
    with pytest.raises(UsageError, match="expected --key value"):
        parse_options(words)


def test_options_come_on_top_of_the_input() -> None:
    """Keys after -- replace those of --input; without any, its text is passed on unchanged."""
    assert {"a": 2, "b": 3} == json.loads(program_input('{"a": 1, "b": 3}', ["--a", "2"]))
    assert '{"a" : 1}' == program_input('{"a" : 1}', [])
    assert "{}" == program_input(None, [])


def test_input_from_file_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`@FILE` and `-` read the JSON from elsewhere."""
    (tmp_path / "in.json").write_text('{"a": 1}')
    monkeypatch.setattr("sys.stdin", io.StringIO('{"b": 2}'))

    assert '{"a": 1}' == program_input(f"@{tmp_path}/in.json", [])
    assert '{"b": 2}' == program_input("-", [])


@pytest.mark.parametrize(
    ("given", "words", "reason"),
    [
        ("hello", [], "no JSON"),
        ("[1]", ["--a", "1"], "has to be a JSON object"),
        ("@/no/such/file", [], "cannot be read"),
    ],
)
def test_input_that_cannot_be_meant(given: str, words: list[str], reason: str) -> None:
    """The mistake is named before anything is started."""
    with pytest.raises(UsageError, match=reason):
        program_input(given, words)
