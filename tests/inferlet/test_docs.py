"""What the documentation for authors shows and lists is what there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

from inferlet import Exhausted, GenerateOptions
from pie_bakery.build import read_manifest
from pie_bakery.build.source import read
from pie_daemon.errors import CODES
from support.fake_pie import FakePie
from support.guests import REPOSITORY

Load = Callable[[str], ModuleType]
GUIDE = (REPOSITORY / "docs/inferlets.md").read_text()
ERRORS = (REPOSITORY / "docs/errors.md").read_text()
SHOWN = re.findall(r"^`(docs/examples/[^`]+)`:\n\n```python\n(.+?)```$", GUIDE, re.S | re.M)
EXAMPLES = sorted(path.name for path in (REPOSITORY / "docs/examples").iterdir())


def test_every_example_is_shown_as_it_stands_in_its_file() -> None:
    """Copying from the page or from the repository is the same."""
    assert {f"docs/examples/{name}/main.py" for name in EXAMPLES} == {path for path, _ in SHOWN}
    for path, text in SHOWN:
        assert text == (REPOSITORY / path).read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_passes_what_a_build_begins_with(name: str) -> None:
    """Manifest and source are sound."""
    folder = REPOSITORY / "docs/examples" / name
    assert name == read_manifest(folder)[1].inferlet.name
    read(folder)


def test_hello_answers(pie: FakePie, shipped: Load) -> None:
    """The first program of the page."""
    pie.answers = [["a server"]]
    assert "a server" == shipped("hello").run({})


def test_best_of_counts_votes_over_forks(pie: FakePie, shipped: Load) -> None:
    """One prompt, several seeds, the answer most agree on."""
    pie.answers = [["blue"], ["red"], ["blue "]]
    result = shipped("best-of").run({"question": "colour?", "tries": 3})
    assert {"answer": "blue", "votes": 2, "of": 3} == result
    assert (3, [0, 1, 2]) == (len(set(pie.prompts)) * 3, [one["seed"] for one in pie.options])


def test_weather_calls_its_tool_until_the_answer(pie: FakePie, shipped: Load) -> None:
    """The tool's result is in the next prompt; a model that never stops calling is ended."""
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
    pie.answers = [[call], ["It is sunny."]]
    assert {"answer": "It is sunny."} == shipped("weather").run({})
    assert 't:{"temperature": 15, "sky": "sunny"}' in pie.prompts[-1]
    pie.answers = [[call] for _ in range(4)]
    with pytest.raises(Exhausted):
        shipped("weather").run({})


def test_opinions_asks_every_adapter(pie: FakePie, shipped: Load) -> None:
    """The same question, with each adapter and without one."""
    pie.answers = [["so"], ["thus"], ["no"]]
    result = shipped("opinions").run({"adapters": ["a", "b"]})
    assert {"no adapter": "so", "a": "thus", "b": "no"} == result
    assert ([None, "a", "b"], 1) == (pie.adapters, len(set(pie.prompts)))


def test_resume_goes_on_where_it_stopped(pie: FakePie, shipped: Load) -> None:
    """The second run begins with what the first has saved, on the disk."""
    pie.answers = [["b"], ["d"]]
    program = shipped("resume")
    assert [{"answer": "b", "length": 2}, {"answer": "d", "length": 4}] == [
        program.run({"text": text}) for text in ("a", "c")
    ]
    assert (["a", "abc"], ["story", "story"]) == (pie.prompts, pie.durable)


def test_majority_says_what_most_drafts_say(pie: FakePie, shipped: Load) -> None:
    """One event when streamed; sampling is its own affair."""
    pie.answers = [["4"], ["5"], ["4"], ["3"], ["4"]]
    asked = {"messages": [{"role": "user", "content": "2+2?"}], "stream": True}
    assert {"text": "4", "finish_reason": "stop"} == shipped("majority").run(asked)
    assert [{"type": "delta", "text": "4"}] == pie.events


def test_interview_goes_on_until_the_client_closes(pie: FakePie, shipped: Load) -> None:
    """A reply to every message, streamed."""
    pie.answers = [["hi", "!"], ["bye"]]
    pie.inbox = [SimpleNamespace(value="hello"), SimpleNamespace(value="so long")]
    assert {"turns": 4} == shipped("interview").run({})
    assert ["delta", "delta", "done", "delta", "done"] == [event["type"] for event in pie.events]


def test_card_gives_its_schema_and_parses_what_is_finished(pie: FakePie, shipped: Load) -> None:
    """A text that came to no end is not parsed."""
    pie.answers = [['{"name": "Ada", "age": 36}'], ['{"name": "A']]
    pie.finish_with("ConstraintComplete")
    assert {"name": "Ada", "age": 36} == shipped("card").run({"text": "Ada is 36"})
    assert ["json_schema"] == [kind for kind, _ in pie.constraints]
    pie.finish_with("Length")
    assert {"error": "unfinished after 11 tokens"} == shipped("card").run({"text": "?"})


def test_every_option_is_in_the_table() -> None:
    """An option nobody can find is none."""
    named = set(re.findall(r"`(\w+)`", GUIDE))
    assert set(GenerateOptions.__annotations__) <= named


def test_every_error_code_has_its_section() -> None:
    """Meaning and way out, for all codes there are and no others."""
    titles = set(re.findall(r"^###? ([a-z-]+)$", ERRORS, re.M))
    assert CODES | {"program-error", "trap"} == titles
    assert ERRORS.count("*Way") == len(titles)
