"""The endpoint over real programs: protocol, errors, clients that leave."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from pie_daemon.errors import PieError
from pie_daemon.gateway.config import GatewayConfig
from pie_daemon.gateway.server import Gateway, Places
from support.gateway import Endpoint, asked, endpoint, http, until
from support.rig import Rig

pytestmark = pytest.mark.slow

SAY = {"do": "say", "pieces": ["Hel", "lo"]}
HOLD = {"do": "hold"}
KEY = "ann:0123456789abcdef"


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert {"message", "type", "param", "code"} == set(error)
    assert error["message"]
    return error


def running(rig: Rig) -> int:
    return sum(info.state != "finished" for info in rig.supervisor.instances())


def data_of(lines: list[str]) -> list[Any]:
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_health_needs_nothing(served: Endpoint) -> None:
    """For probes."""
    response = await served.client.get("/health")
    assert (200, {"status": "ok"}) == (response.status_code, response.json())


async def test_models_are_the_models_and_the_programs_with_a_contract(served: Endpoint) -> None:
    """`echo` has none, so it is no model."""
    listed = (await served.client.get("/v1/models")).json()
    assert "list" == listed["object"]
    assert {
        "dummy": "model",
        "actor": "program",
        "chat": "program",
        "text-completion": "program",
    } == {one["id"]: one["kind"] for one in listed["data"]}
    one = (await served.client.get("/v1/models/actor")).json()
    assert ("actor", "model", "system") == (one["id"], one["object"], one["owned_by"])
    assert "model_not_found" == error_of(await served.client.get("/v1/models/echo"))["code"]


async def test_a_programs_answer_in_one_piece(served: Endpoint) -> None:
    """Text, reason and usage, with what is counted by the daemon."""
    made = (await served.chat(SAY)).json()
    assert "chat.completion" == made["object"]
    assert made["id"].startswith("chatcmpl-")
    assert "actor" == made["model"]
    choice = made["choices"][0]
    assert {"role": "assistant", "content": "Hello", "refusal": None} == choice["message"]
    assert "stop" == choice["finish_reason"]
    assert 0 == made["usage"]["prompt_tokens_details"]["cached_tokens"]


async def test_a_programs_answer_as_a_stream(served: Endpoint) -> None:
    """The role first, pieces as they were sent, the reason, usage when asked for, the end."""
    lines = await served.lines(SAY, stream_options={"include_usage": True})
    chunks = data_of(lines)
    deltas = [one["choices"][0]["delta"] for one in chunks[:-1]]
    assert {"role": "assistant", "content": "", "refusal": None} == deltas[0]
    assert [{"content": "Hel"}, {"content": "lo"}, {}] == deltas[1:]
    assert [None, None, None, "stop"] == [one["choices"][0]["finish_reason"] for one in chunks[:-1]]
    assert [] == chunks[-1]["choices"]
    assert 0 == chunks[-1]["usage"]["completion_tokens"]
    assert 1 == len({one["id"] for one in chunks})
    assert all(one["usage"] is None for one in chunks[:-1])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("value", "text", "reason"),
    [
        ("plain", "plain", "stop"),
        (None, "", "stop"),
        ({"text": "a", "finish_reason": "budget"}, "a", "length"),
        ({"text": "a", "finish_reason": "of its own", "more": 1}, "a", "stop"),
    ],
)
async def test_a_program_that_only_returns_is_fine(
    served: Endpoint, stream: bool, value: Any, text: str, reason: str
) -> None:
    """A string, an object with text; streamed, it comes in one piece."""
    order = {"do": "result", "value": value}
    if stream:
        choices = [one["choices"][0] for one in data_of(await served.lines(order))]
        said = "".join(one["delta"].get("content", "") for one in choices)
        assert (text, reason) == (said, choices[-1]["finish_reason"])
    else:
        choice = (await served.chat(order)).json()["choices"][0]
        assert (text, reason) == (choice["message"]["content"], choice["finish_reason"])


async def test_a_programs_calls_keep_their_ids(served: Endpoint) -> None:
    """The program may know its calls by them; without text the content is null."""
    choice = (await served.chat({"do": "call"})).json()["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert {"id": "mine", "type": "function", "function": call["function"]} == call
    assert {"name": "add", "arguments": '{"a": 1}'} == call["function"]
    assert (None, "tool_calls") == (choice["message"]["content"], choice["finish_reason"])


async def test_a_program_gets_only_what_was_given(served: Endpoint) -> None:
    """No defaults but `stream`."""
    text = (await served.chat({"do": "input"}, seed=3)).json()["choices"][0]["message"]["content"]
    assert {"messages", "stream", "seed"} == set(json.loads(text))


async def test_a_models_name_runs_the_shipped_programs(served: Endpoint) -> None:
    """Chat and completions, each with OpenAI's defaults."""
    message = {"role": "user", "content": "hi"}
    chat = {"model": "dummy", "messages": [message], "max_tokens": 3, "ignore_eos": True}
    made = (await served.client.post("/v1/chat/completions", json=chat)).json()
    assert 3 == made["usage"]["completion_tokens"]
    prompts = {"model": "dummy", "prompt": ["abc", "d"], "n": 2, "ignore_eos": True}
    made = (await served.client.post("/v1/completions", json=prompts)).json()
    assert [0, 1, 2, 3] == [one["index"] for one in made["choices"]]
    assert {"prompt_tokens": 4, "completion_tokens": 64, "total_tokens": 68} == {
        key: value for key, value in made["usage"].items() if isinstance(value, int)
    }
    assert all(len(one["text"]) == 16 for one in made["choices"])


async def test_several_choices_stream_side_by_side(served: Endpoint) -> None:
    """Each with its own index and end."""
    chunks = [one["choices"][0] for one in data_of(await served.lines(SAY, n=3))]
    for index in range(3):
        own = [one for one in chunks if one["index"] == index]
        assert "Hello" == "".join(one["delta"].get("content", "") for one in own)
        assert "stop" == own[-1]["finish_reason"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("how", "status"), [("refuse", 400), ("exhaust", 400), ("raise", 500), ("exit", 500)]
)
async def test_a_program_that_fails_at_once_is_a_status(
    served: Endpoint, stream: bool, how: str, status: int
) -> None:
    """Streamed as well, as nothing was sent yet; clients are told not to try again."""
    response = await served.chat({"do": "crash", "after": 0, "how": how}, stream=stream)
    assert status == response.status_code
    assert "false" == response.headers["x-should-retry"]
    error_of(response)


async def test_a_crash_in_the_middle_is_an_event_of_the_stream(served: Endpoint) -> None:
    """What was said before arrives; the stream ends without [DONE]."""
    lines = await served.lines({"do": "crash", "after": 2})
    said = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert ["", "0 ", "1 "] == [one["choices"][0]["delta"]["content"] for one in said[:-1]]
    assert "program-error" == said[-1]["error"]["code"]
    assert "as asked" in said[-1]["error"]["message"]


async def test_one_failed_choice_ends_the_others(served: Endpoint, rig: Rig) -> None:
    """The request has failed; nothing goes on running for it."""
    response = await served.chat({"do": "result", "value": {"text": 1}}, n=2)
    assert 500 == response.status_code
    assert "contract" in error_of(response)["message"]
    await until(lambda: running(rig) == 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("do", ["hold", "generate"])
async def test_a_client_that_leaves_ends_its_program(
    served: Endpoint, rig: Rig, stream: bool, do: str
) -> None:
    """Waiting or generating, streamed or not; its pages come back."""
    async with served.raw() as (_, writer):
        writer.write(http(asked({"do": do}, stream=stream)))
        await until(lambda: running(rig) == 1)
        await until(lambda: rig.scheduler.stats().free_pages < rig.scheduler.info.num_pages)
    await until(lambda: running(rig) == 0)
    await until(lambda: rig.scheduler.stats().free_pages == rig.scheduler.info.num_pages)


async def test_a_client_that_leaves_between_two_pieces(served: Endpoint, rig: Rig) -> None:
    """In the middle of its stream, through a client library."""
    body = asked({"do": "generate"}, stream=True)
    async with served.client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if '"content":"' in line and '"content":""' not in line:
                break
    await until(lambda: running(rig) == 0)


async def test_silence_carries_comments(rig: Rig, tmp_path: Path) -> None:
    """Headers and a comment come although the program says nothing."""
    async with endpoint(rig, tmp_path, comment_s=0.05) as served:
        body = asked({"do": "hold", "say": False}, stream=True)
        async with served.client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert 200 == response.status_code
            async for line in response.aiter_lines():
                assert line == ": still working"
                break
    await until(lambda: running(rig) == 0)


async def test_a_reader_that_stops_is_left_and_its_program_ended(rig: Rig, tmp_path: Path) -> None:
    """Neither the log nor the connection's buffer grows beyond its bound meanwhile."""
    async with endpoint(rig, tmp_path, write_timeout_s=0.3) as served, served.raw() as (_, writer):
        writer.write(http(asked({"do": "flood", "events": 1_000_000}, stream=True)))
        await until(lambda: running(rig) == 1)
        await until(lambda: running(rig) == 0)


async def test_a_request_that_runs_too_long_is_ended(rig: Rig, tmp_path: Path) -> None:
    """With 504, and its program with it."""
    async with endpoint(rig, tmp_path, request_timeout_s=0.3) as served:
        response = await served.chat({"do": "generate"})
        assert (504, "timeout") == (response.status_code, error_of(response)["code"])


async def test_an_answer_without_end_is_ended(rig: Rig, tmp_path: Path) -> None:
    """Beyond gateway.max_answer_bytes."""
    async with endpoint(rig, tmp_path, max_answer_bytes=10_000) as served:
        response = await served.chat({"do": "flood", "events": 1_000_000})
        assert 500 == response.status_code
        assert "max_answer_bytes" in error_of(response)["message"]
    await until(lambda: running(rig) == 0)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("POST", "/v1/embeddings", 404), ("GET", "/", 404)],
)
async def test_what_is_not_served_says_so(
    served: Endpoint, method: str, path: str, status: int
) -> None:
    """In OpenAI's shape too."""
    response = await served.client.request(method, path)
    assert status == response.status_code
    error_of(response)


async def test_the_body_is_held_to_its_form(rig: Rig, tmp_path: Path) -> None:
    """Size, type, JSON; the connection goes on afterwards."""
    async with endpoint(rig, tmp_path, max_body_bytes=1000) as served:
        post, json_type = served.client.post, {"content-type": "application/json"}
        path = "/v1/chat/completions"
        assert 413 == (await post(path, content=b" " * 2000, headers=json_type)).status_code
        assert 415 == (await post(path, content=b"{}")).status_code
        assert 415 == (await post(path, data={"a": "b"})).status_code
        assert 400 == (await post(path, content=b"{", headers=json_type)).status_code
        assert 200 == (await served.chat(SAY)).status_code


async def test_what_is_not_http_is_refused(served: Endpoint) -> None:
    """As JSON, and the connection is closed."""
    async with served.raw() as (reader, writer):
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"not_http"' in answer


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", http(asked(SAY))[:-5]])
async def test_a_slow_request_is_not_waited_for(rig: Rig, tmp_path: Path, sent: bytes) -> None:
    """Nothing, half a head, half a body: closed after gateway.read_timeout_s."""
    async with endpoint(rig, tmp_path, read_timeout_s=0.1, keep_alive_s=0.1) as served:
        async with served.raw() as (reader, writer), asyncio.timeout(30):
            writer.write(sent)
            answer = await reader.read()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


async def test_surplus_connections_are_told_so(rig: Rig, tmp_path: Path) -> None:
    """With 503, while the others are served."""
    async with endpoint(rig, tmp_path, max_connections=1) as served, served.raw() as (_, first):
        first.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = await served.chat(SAY)
        assert (503, "1") == (response.status_code, response.headers["retry-after"])


async def test_keys_decide_who_may_ask(rig: Rig, tmp_path: Path) -> None:
    """Programs run as the key's user."""
    async with endpoint(rig, tmp_path, api_keys=(KEY, "bob:abcdefghijklmnop")) as served:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": KEY}):
            response = await served.client.get("/v1/models", headers=headers)
            assert (401, "invalid_api_key") == (response.status_code, error_of(response)["code"])
        served.client.headers["authorization"] = "Bearer 0123456789abcdef"
        assert 200 == (await served.chat(SAY)).status_code
        assert "ann" == rig.supervisor.instances()[-1].username
        assert 200 == (await served.client.get("/health")).status_code


async def test_without_keys_no_other_host_is_believed(served: Endpoint) -> None:
    """A page in a browser cannot reach it by a name that it points to this machine."""
    for host, status in (("evil.example", 403), ("localhost:1", 200), ("[::1]:8000", 200)):
        response = await served.client.get("/v1/models", headers={"host": host})
        assert status == response.status_code


async def test_a_name_that_is_no_model(served: Endpoint) -> None:
    """Unknown, without a contract, of the other kind."""
    for name in ("nobody", "echo"):
        response = await served.chat(SAY, model=name)
        assert (404, "model_not_found") == (response.status_code, error_of(response)["code"])
    completion = {"model": "actor", "prompt": "x"}
    response = await served.client.post("/v1/completions", json=completion)
    assert 400 == response.status_code
    assert "/v1/chat/completions" in error_of(response)["message"]


async def test_too_many_programs_are_429(served: Endpoint, rig: Rig) -> None:
    """The operator's own limit; it may work later."""
    before = rig.limits
    rig.limits = msgspec.structs.replace(before, instances=1)
    try:
        response = await served.chat(SAY, n=2)
    finally:
        rig.limits = before
    assert (429, "quota") == (response.status_code, error_of(response)["code"])
    assert "true" == response.headers["x-should-retry"]


async def test_drained_it_finishes_what_runs(rig: Rig, tmp_path: Path) -> None:
    """Open streams go on to their end, new requests are refused, idle connections closed."""
    async with endpoint(rig, tmp_path) as served:
        body = asked(HOLD, stream=True)
        async with served.client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.aiter_lines()
            while "holding" not in await anext(lines):
                pass
            served.gateway.drain()
            instance = next(i for i in rig.supervisor.instances() if i.state == "running")
            rig.supervisor.get(instance.id).close_input()
            rest = [line async for line in lines]
        assert "data: [DONE]" in rest
        await served.gateway.close()
        with pytest.raises(httpx.ConnectError):
            await served.client.get("/health")


async def test_closing_does_not_wait_for_programs(rig: Rig, tmp_path: Path) -> None:
    """Whatever is left then is cut off and its program ended."""
    async with endpoint(rig, tmp_path) as served, served.raw() as (reader, writer):
        writer.write(http(asked(HOLD, stream=True)))
        await reader.readuntil(b"holding")
        await served.gateway.close()
        await reader.read()
    await until(lambda: running(rig) == 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com"])
async def test_an_open_address_needs_keys_or_insistence(
    rig: Rig, tmp_path: Path, host: str
) -> None:
    """It does not start, and says what to do."""
    places = Places(tmp_path, tmp_path)
    config = GatewayConfig(enabled=True, host=host, port=0)
    gateway = Gateway(config, rig.supervisor, rig.store, rig.models, places)
    with pytest.raises(PieError, match=r"gateway\.api_keys"):
        await gateway.start()
    await gateway.close()


async def test_a_port_in_use_is_named(served: Endpoint, rig: Rig, tmp_path: Path) -> None:
    """With the setting that changes it."""
    config = GatewayConfig(enabled=True, port=served.port)
    gateway = Gateway(config, rig.supervisor, rig.store, rig.models, Places(tmp_path, tmp_path))
    with pytest.raises(PieError, match=r"gateway\.port"):
        await gateway.start()
    await gateway.close()
