"""The daemon as its users see it: real processes, real sockets, the embedded model."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pie_client import Client
from pie_client.errors import PieError, ProgramError
from support.daemon import DaemonProcess
from support.waiting import until

pytestmark = pytest.mark.slow

WORDS = "red green blue one two three apple pear stone river cloud seven".split()
NUM_TOKENS = 32


def prompts(count: int) -> list[str]:
    """All different, of different lengths, some longer than two pages."""
    return [
        f"{number}: " + " ".join(WORDS[(number * 7 + i) % 12] for i in range(3 + number % 40))
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def reference() -> dict[str, list[int]]:
    """Greedy tokens of `transformers` in float32 for every prompt, end of text ignored."""
    transformers = pytest.importorskip("transformers")
    import torch

    from pie_backend.model_dir import resolve

    path = str(resolve("crumb").path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    found = {}
    for prompt in prompts(64):
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )
        found[prompt] = output[0, inputs.input_ids.shape[1] :].tolist()
    return found


def greedy(prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": NUM_TOKENS,
        "ignore_eos": True,
        **more,
    }


def test_sixty_four_programs_at_once_produce_the_tokens_of_transformers(
    clean: DaemonProcess, reference: dict[str, list[int]]
) -> None:
    """Exactly, in float32, whatever batches they happened to share."""
    with clean.connect() as client:
        running = {prompt: client.launch("text-completion", greedy(prompt)) for prompt in reference}
        made = {prompt: process.result()["tokens"] for prompt, process in running.items()}

    assert reference == made


def test_killing_some_leaves_the_others_unchanged(
    clean: DaemonProcess, reference: dict[str, list[int]]
) -> None:
    """Sixteen of sixty-four are ended as soon as they have streamed something."""
    with clean.connect() as client:
        running = {
            prompt: client.launch("text-completion", greedy(prompt, stream=True))
            for prompt in reference
        }
        victims = list(running.values())[::4]
        for process in victims:
            process.terminate("by a test")
        survivors = {p: process for p, process in running.items() if process not in victims}
        made = {prompt: process.result()["tokens"] for prompt, process in survivors.items()}
        ends = [process.outcome().status for process in victims]

    assert {prompt: reference[prompt] for prompt in survivors} == made
    assert 48 == len(made)
    assert set(ends) <= {"cancelled", "ok"}


def test_a_stream_joins_to_the_result(clean: DaemonProcess) -> None:
    """Deltas, then the usage, then the outcome."""
    with clean.connect() as client:
        process = client.launch("text-completion", greedy("27 + 15 =", stream=True))
        messages = [event.json() for event in process.events() if hasattr(event, "json")]
        result = process.result()

    assert result["text"] == "".join(m["text"] for m in messages if m["type"] == "delta")
    assert "usage" == messages[-1]["type"]
    assert NUM_TOKENS == messages[-1]["generated_tokens"]


def test_chat_answers_in_the_models_own_template(clean: DaemonProcess) -> None:
    """The embedded model knows what Pie is, and stops by itself."""
    with clean.connect() as client:
        question = {"messages": [{"role": "user", "content": "What is Pie?"}], "temperature": 0}
        result = client.launch("chat", question).result()

    assert "Pie" in result["text"]
    assert "stop" in result["finish_reason"]


def test_echo_returns_its_input(clean: DaemonProcess) -> None:
    """Any JSON, unchanged."""
    value = {"text": "grüße 🍰", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    with clean.connect() as client:
        assert value == client.launch("echo", value).result()


@pytest.mark.parametrize(
    "fields",
    [{"do": "spin"}, {"do": "sleep", "seconds": 1e6}, {"do": "receive"}],
    ids=["loops", "sleeps", "receives"],
)
def test_a_neighbour_goes_on_while_a_stuck_program_is_stopped(
    clean: DaemonProcess, fields: dict[str, Any]
) -> None:
    """The stuck one ends with the reason given; the neighbour's result is its own."""
    with clean.connect() as client:
        neighbour = client.launch("text-completion", greedy("a neighbour"))
        stuck = client.launch("behave", fields)
        next(iter(stuck.events()))
        stuck.terminate("stuck")
        with pytest.raises(ProgramError, match="stuck") as ended:
            stuck.result()
        assert NUM_TOKENS == len(neighbour.result()["tokens"])
    assert "cancelled" == ended.value.code


def test_tokens_flow_beside_programs_that_loop_and_flood(clean: DaemonProcess) -> None:
    """One spins, one floods a client that does not read; completions still complete."""
    with clean.connect() as client, clean.connect() as lazy:
        spinning = client.launch("behave", {"do": "spin"})
        flooding = lazy.launch("behave", {"do": "flood", "messages": 100_000})
        for _ in range(3):
            assert client.launch("text-completion", greedy("still here")).result()["tokens"]
        spinning.terminate()
        flooding.terminate()
        with pytest.raises(ProgramError):
            spinning.result()


def test_many_clients_at_once_are_all_served(clean: DaemonProcess) -> None:
    """Each has a connection and a thread of its own."""

    def one(number: int) -> Any:
        with clean.connect() as client:
            return client.launch("echo", {"number": number}).result()["number"]

    with ThreadPoolExecutor(16) as pool:
        assert list(range(48)) == list(pool.map(one, range(48)))


def test_a_client_may_leave_and_come_back_for_its_program(clean: DaemonProcess) -> None:
    """Detached, the program goes on; attaching replays what was not acknowledged."""
    with clean.connect() as client:
        process = client.launch("behave", {"do": "receive"}, detached=True)
        process.detach()
    with clean.connect() as client:
        process = client.attach(process.id)
        process.send("welcome back")
        assert "welcome back" in process.result()


def test_programs_of_a_client_that_vanishes_are_ended(daemon: DaemonProcess) -> None:
    """Unless they were launched detached: nobody would ever read their output."""
    client = daemon.connect()
    process = client.launch("behave", {"do": "receive"})
    client.close()
    with daemon.connect() as other:
        until(lambda: _state(other, process.id) == "finished")


def _state(client: Client, instance: str) -> str:
    return next(info.state for info in client.instances() if info.id == instance)


def test_an_unknown_program_is_answered_with_the_known_ones(daemon: DaemonProcess) -> None:
    """The error's code is stable, its sentence helps."""
    with daemon.connect() as client, pytest.raises(PieError, match="text-completion") as refused:
        client.launch("text-complete", {})
    assert "not-found" == refused.value.code


def test_bad_input_names_the_key(daemon: DaemonProcess) -> None:
    """As the program's own error, with its code."""
    with daemon.connect() as client, pytest.raises(ProgramError, match="temperature") as refused:
        client.launch("text-completion", {"prompt": "x", "temperature": "hot"}).result()
    assert "invalid-argument" == refused.value.code


def test_a_stop_is_quick(daemon: DaemonProcess) -> None:
    """A hang guard, not a measurement: the three kinds of stuck programs end within seconds."""
    with daemon.connect() as client:
        for fields in ({"do": "spin"}, {"do": "sleep", "seconds": 1e6}, {"do": "receive"}):
            process = client.launch("behave", fields)
            next(iter(process.events()))
            asked = time.monotonic()
            client.terminate(process.id)
            with pytest.raises(ProgramError):
                process.result()
            assert time.monotonic() - asked < 10
