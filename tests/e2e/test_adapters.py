"""Adapters in the daemon: the embedded model with adapters that PEFT wrote, against PEFT merged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

from pie_backend.model_dir import resolve
from support.adapters import ATTENTION, MLP, write_adapter
from support.checkpoints import Checkpoint
from support.daemon import DaemonProcess, scheduler_of

pytestmark = pytest.mark.slow
NUM_TOKENS = 16
WORDS = "red green blue one two three apple pear stone river cloud seven".split()


@pytest.fixture(scope="module")
def crumb() -> Checkpoint:
    transformers.logging.set_verbosity_error()
    path = resolve("crumb").path
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return Checkpoint(path, model)


@pytest.fixture(scope="module")
def merged(crumb: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Checkpoint]:
    """By the name of the adapter; None is the model itself."""
    root = tmp_path_factory.mktemp("adapters")
    small = write_adapter(crumb, root / "small", 1, r=2, target_modules=ATTENTION)
    large = write_adapter(crumb, root / "large", 2, r=8, target_modules=[*ATTENTION, *MLP])
    return {None: crumb, "small": small, "large": large}


@pytest.fixture
def offering(merged: dict[Any, Checkpoint]) -> Iterator[DaemonProcess]:
    """A daemon that offers both."""
    folder = merged["small"].path.parent
    daemon = DaemonProcess(f"model.adapters={folder}", "backend.dtype=float32")
    try:
        daemon.start().install("adapted")
        yield daemon
        assert 0 == daemon.stop(), daemon.log.read_text()
    finally:
        daemon.remove()


def encode(text: str) -> list[int]:
    from pie_backend.tokenizer import Tokenizer

    return Tokenizer(resolve("crumb").path).encode(text, True)


def test_a_program_gets_the_tokens_of_peft(
    offering: DaemonProcess, merged: dict[Any, Checkpoint]
) -> None:
    """Two adapters and none in the same batches, through a component, the socket and the worker."""
    prompts = [
        [encode(" ".join(WORDS[i % 12] for i in range(number, number * 4))), name]
        for number, name in enumerate([None, "small", "large", "small", None, "large"], start=3)
    ]
    with offering.connect() as client:
        result = client.launch(
            "adapted", {"prompts": prompts, "max_tokens": NUM_TOKENS, "refusals": ["other"]}
        ).result()
        numbers = scheduler_of(client)
    for (tokens, name), found in zip(prompts, result["tokens"], strict=True):
        assert merged[name].generate(tokens, NUM_TOKENS) == found
    [[code, message]] = result["refusals"]
    assert ("not-found", True) == (code, "there are: large, small" in message)
    assert 2 == numbers["adapters"]
