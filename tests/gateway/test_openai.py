"""The unmodified `openai` client, and curl as the page shows it, against a real daemon."""

from __future__ import annotations

import asyncio
import doctest
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from support.daemon import DaemonProcess, is_empty, scheduler_of
from support.guests import REPOSITORY
from support.ports import free_port
from support.programs import built
from support.waiting import until

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs/gateway.md").read_text()
PROGRAMS = ("chat", "text-completion", "actor", "majority")
SUM = [{"role": "user", "content": "What is 12 + 30?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASKED = "What is the weather in Paris?"


class Served(DaemonProcess):
    def __init__(self) -> None:
        self.port = free_port()
        super().__init__(
            "gateway=on",
            f"gateway.port={self.port}",
            "backend.dtype=float32",
            "backend.kv_pages=4096",
            "runtime.drain_s=5",
        )
        for name in PROGRAMS:
            shutil.copy(built(name), self.folder / f"{name}.wasm")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


PERSON: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 20},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
            },
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
}


UNKNOWN_TYPE = {"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "nothing"}}}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Served]:
    daemon = Served()
    try:
        daemon.start()
        daemon.wait_for(*PROGRAMS)
        yield daemon
        assert 0 == daemon.stop(), daemon.log.read_text()
        assert "task failed" not in daemon.log.read_text()
    finally:
        daemon.remove()


@pytest.fixture
def clean(daemon: Served) -> Iterator[Served]:
    """Afterwards nothing runs and every page is free."""
    yield daemon
    with daemon.connect() as client:
        until(lambda: is_empty(scheduler_of(client)))
        numbers = scheduler_of(client)
    assert numbers["integrity_error"] is None


@pytest.fixture
def client(clean: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{clean.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def order(**what: Any) -> list[Any]:
    return [{"role": "user", "content": json.dumps(what)}]


def test_models(client: OpenAI) -> None:
    """The loaded model beside the programs."""
    assert {"crumb", *PROGRAMS} == {one.id for one in client.models.list()}
    assert "pie" == client.models.retrieve("crumb").owned_by
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_a_chat(client: OpenAI) -> None:
    """The embedded model adds; the second time its prompt is in the cache."""
    for _ in range(2):
        made = client.chat.completions.create(model="crumb", messages=SUM, temperature=0)  # type: ignore[arg-type]
        assert ("42", "stop") == (made.choices[0].message.content, made.choices[0].finish_reason)
        assert made.usage is not None
        assert 18 == made.usage.prompt_tokens
        assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    assert made.usage.prompt_tokens_details is not None
    assert made.usage.prompt_tokens_details.cached_tokens == 16


def test_a_chat_as_a_stream(client: OpenAI) -> None:
    """Joined it is the same answer; usage comes last."""
    options: Any = {"messages": SUM, "temperature": 0, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="chat", stream=True, **options))
    said = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert "42" == said
    assert "stop" == chunks[-2].choices[0].finish_reason
    assert chunks[-1].usage is not None
    assert 18 == chunks[-1].usage.prompt_tokens


def test_a_program_as_a_model(client: OpenAI) -> None:
    """The example of docs/inferlets.md: one answer of five drafts; it refuses what it cannot do."""
    options: Any = {"model": "majority", "messages": SUM}
    whole = client.chat.completions.create(**options)
    chunks = client.chat.completions.create(stream=True, **options)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert ("42", "42") == (whole.choices[0].message.content, said)
    assert whole.usage is not None
    assert whole.usage.prompt_tokens >= 5 * 18
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(temperature=0, **options)


def test_tools_and_back(client: OpenAI) -> None:
    """A call, its result, an answer that uses it; the answer's own message is handed back."""
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    options: Any = {"model": "crumb", "temperature": 0, "tools": [WEATHER]}
    choice = client.chat.completions.create(messages=messages, **options).choices[0]
    assert "tool_calls" == choice.finish_reason
    assert choice.message.tool_calls is not None
    call: Any = choice.message.tool_calls[0]
    assert ("get_weather", {"city": "Paris"}) == (
        call.function.name,
        json.loads(call.function.arguments),
    )
    result = json.dumps({"temperature": 21, "sky": "sunny"})
    messages += [
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    choice = client.chat.completions.create(messages=messages, **options).choices[0]
    assert "21" in (choice.message.content or "")


def test_a_tool_call_as_a_stream(client: OpenAI) -> None:
    """The client's own helper puts it together."""
    with client.chat.completions.stream(
        model="crumb",
        messages=[{"role": "user", "content": ASKED}],
        temperature=0,
        tools=[WEATHER],  # type: ignore[list-item]
    ) as stream:
        final = stream.get_final_completion()
    call: Any = (final.choices[0].message.tool_calls or [None])[0]
    assert "get_weather" == call.function.name
    assert {"city": "Paris"} == json.loads(call.function.arguments)


def test_completions(client: OpenAI) -> None:
    """Several prompts, logprobs, a stream, a limit."""
    made = client.completions.create(
        model="crumb", prompt=["27 + 15 =", "1 + 1 ="], temperature=0, logprobs=2
    )
    assert [" 42", " 2"] == [one.text for one in made.choices]
    probabilities = made.choices[0].logprobs
    assert probabilities is not None
    assert [" ", "4", "2"] == probabilities.tokens
    assert [2, 2, 2] == [len(one) for one in probabilities.top_logprobs or []]
    stream = client.completions.create(
        model="text-completion", prompt="Once upon a time", max_tokens=4, stream=True
    )
    reasons = [chunk.choices[0].finish_reason for chunk in stream]
    assert ["length"] == [reason for reason in reasons if reason]


def test_logprobs_of_a_stream_are_those_of_the_whole(client: OpenAI) -> None:
    """One per token of the text, whichever way it comes."""
    options: Any = {"messages": SUM, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(model="crumb", **options).choices[0].logprobs
    parts = [
        entry.token
        for chunk in client.chat.completions.create(model="crumb", stream=True, **options)
        for entry in (chunk.choices[0].logprobs and chunk.choices[0].logprobs.content) or []
    ]
    assert whole is not None
    assert ["4", "2"] == [entry.token for entry in whole.content or []] == parts


def test_seeds_and_choices(client: OpenAI) -> None:
    """The same request twice is the same; its choices differ."""
    options: Any = {"prompt": "Once upon a time", "seed": 7, "n": 3, "max_tokens": 12}
    first, second = (
        [one.text for one in client.completions.create(model="crumb", **options).choices]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 1


def test_stop_and_biases(client: OpenAI) -> None:
    """Text ends before the stop string; a banned token never comes."""
    made = client.completions.create(model="crumb", prompt="27 + 15 =", temperature=0, stop="2")
    assert (" 4", "stop") == (made.choices[0].text, made.choices[0].finish_reason)


@pytest.mark.parametrize(
    ("options", "error", "param"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"extra_body": {"nonsense": 1}}, openai.BadRequestError, "nonsense"),
        ({"response_format": {"type": "grammar"}}, openai.BadRequestError, "response_format"),
        (
            {
                "response_format": {
                    **PERSON,
                    "json_schema": {"name": "p", "schema": {"type": "nothing"}},
                }
            },
            openai.BadRequestError,
            None,
        ),
        ({"logit_bias": {"999999": 1}}, openai.BadRequestError, None),
        ({"messages": [{"role": "user", "content": "long " * 5000}]}, openai.BadRequestError, None),
    ],
)
def test_errors_become_the_clients_own(
    client: OpenAI, options: Any, error: type[openai.APIStatusError], param: str | None
) -> None:
    """With the parameter where one is to blame."""
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "crumb", "messages": SUM, **options})
    assert param == caught.value.param
    assert caught.value.message


def test_an_answer_by_a_schema(client: OpenAI) -> None:
    """What the embedded model says is held to the schema, streamed or not."""
    asked: Any = {
        "model": "crumb",
        "messages": [{"role": "user", "content": "Give the name and age: Ada is 36 years old."}],
        "response_format": PERSON,
        "temperature": 1,
        "seed": 7,
        "max_tokens": 200,
    }
    whole = client.chat.completions.create(**asked).choices[0].message.content
    chunks = client.chat.completions.create(**asked, stream=True)
    streamed = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)

    jsonschema.validate(json.loads(whole or ""), PERSON["json_schema"]["schema"])
    assert whole == streamed


def test_a_crash_in_the_middle_raises_in_the_loop(client: OpenAI) -> None:
    """After what was said."""
    said = ""
    stream = client.chat.completions.create(
        model="actor", messages=order(do="crash", after=2), stream=True
    )
    with pytest.raises(openai.APIError, match="as asked"):  # noqa: PT012 - the loop is the test
        for chunk in stream:
            said += chunk.choices[0].delta.content or ""
    assert "0 1 " == said


def test_a_program_that_crashed_is_not_run_again(clean: Served) -> None:
    """Although the client tries twice more by default."""
    with OpenAI(base_url=f"{clean.url}/v1", api_key="none") as client, clean.connect() as pie:
        before = len(pie.instances())
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="actor", messages=order(do="crash", after=0))
        assert 1 == len(pie.instances()) - before


def test_leaving_a_stream_ends_the_program(client: OpenAI, clean: Served) -> None:
    """Its pages were taken, and come back; the fixture looks at them again."""
    stream = client.chat.completions.create(
        model="crumb",
        messages=[{"role": "user", "content": "Tell me a story"}],
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    with clean.connect() as pie:
        numbers = scheduler_of(pie)
        assert 1 == numbers["owners"]
        stream.close()
        until(lambda: scheduler_of(pie)["owners"] == 0)
        assert "cancelled" == pie.instances()[-1].outcome.status  # type: ignore[union-attr]


async def test_many_at_once_with_the_asynchronous_client(clean: Served) -> None:
    """Whole and streamed, some of them left early."""
    async with AsyncOpenAI(base_url=f"{clean.url}/v1", api_key="none") as client:

        async def whole(number: int) -> str:
            asked: Any = [{"role": "user", "content": f"What is {number} + 30?"}]
            made = await client.chat.completions.create(
                model="crumb", messages=asked, temperature=0
            )
            return made.choices[0].message.content or ""

        async def left_early() -> str:
            stream = await client.chat.completions.create(
                model="actor", messages=order(do="generate"), stream=True
            )
            async for _ in stream:
                break
            await stream.close()
            return "left"

        answers = await asyncio.gather(
            *(whole(number) for number in range(10, 26)), *(left_early() for _ in range(8))
        )
    right = sum(answers[i] == str(10 + i + 30) for i in range(16))
    assert right >= 14
    assert ["left"] * 8 == answers[16:]


def test_the_page_shows_what_happens(clean: Served) -> None:
    """Every curl command of docs/gateway.md, and its Python, with the port of this daemon."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.M) if part]
    assert 3 == len(commands)
    for command in commands:
        match = re.match(r"(curl .*?(?:'|models))\n((?:\{|data).*)", command, re.DOTALL)
        assert match is not None
        line = match[1].replace("http://127.0.0.1:8000", clean.url)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
        got = re.sub(r"\n+", "\n", done.stdout.strip()) + "\n"
        assert doctest.OutputChecker().check_output(match[2], got, flags), (match[2], got)
    source = re.search(r"^```python\n(from openai.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert source is not None
    text = source[1].replace("http://127.0.0.1:8000", clean.url)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert "Pie serves" in done.stdout, done.stderr


def test_a_stop_lets_streams_end() -> None:
    """SIGTERM: the stream that runs is finished, then the daemon is gone with exit code 0."""
    daemon = Served()
    try:
        daemon.start()
        daemon.wait_for("actor")
        with OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="actor", messages=order(do="say", pieces=["a"] * 3000), stream=True
            )
            chunks = iter(stream)
            next(chunks)
            codes: list[int] = []
            stopping = threading.Thread(target=lambda: codes.append(daemon.stop()))
            stopping.start()
            said = [chunk.choices[0].delta.content for chunk in chunks]
            stopping.join()
        assert [0] == codes
        assert 3000 == said.count("a")
    finally:
        daemon.remove()
