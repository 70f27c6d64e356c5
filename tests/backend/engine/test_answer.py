"""What a row may ask for: several draws, masks and probes, at any of its tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pie_backend.base import BackendError
from pie_backend.batch import Batch, Probe, Probed, Row, Sample, Sampling
from pie_backend.engine.engine import Engine
from support.checkpoints import VOCAB_SIZE, Checkpoint, prompts

OpenEngine = Callable[..., Engine]
GREEDY = Sampling()
PAGES = list(range(16))


def packed(allowed: set[int]) -> bytes:
    bits = np.zeros(VOCAB_SIZE, np.uint8)
    bits[sorted(allowed)] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def floats(probed: Probed) -> torch.Tensor:
    return torch.frombuffer(bytearray(probed.values), dtype=torch.float32)


def test_a_draw_after_every_token_of_a_row(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """One row gives, in the order asked for, what the reference likes best after each token."""
    prompt = prompts(16)[9]
    logits = qwen3.logits(prompt)
    order = [len(prompt) - 1, 0, 3]
    row = Row(prompt, 0, PAGES, [Sample(index, GREEDY) for index in order])
    other = Row([7], 0, [20], [Sample(0, GREEDY)])

    tokens = open_engine(qwen3).execute(Batch(0, [row, other])).tokens

    assert [int(logits[index].argmax()) for index in order] == tokens[0]
    assert [int(qwen3.logits([7])[-1].argmax())] == tokens[1]


def test_what_nobody_asked_about_is_seen_later(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """A row that asks for nothing, alone and beside others, then one that goes on after it."""
    prompt = prompts(16)[9]
    wanted = int(qwen3.logits(prompt)[-1].argmax())
    engine = open_engine(qwen3)
    silent = Row(prompt[:-4], 0, PAGES)
    other = Row([5, 6], 0, [20], [Sample(0, GREEDY)])
    rest = Row(prompt[-4:], len(prompt) - 4, PAGES, [Sample(3, GREEDY)])

    for number, before in enumerate(([silent], [silent, other], [other, silent])):
        engine.execute(Batch(2 * number, before))
        assert [[wanted]] == engine.execute(Batch(2 * number + 1, [rest])).tokens


def test_a_mask_wins_over_biases(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Only allowed tokens are drawn, greedily the likeliest of them; other draws stay free."""
    prompt = prompts(16)[5]
    logits = qwen3.logits(prompt)[-1]
    worst = logits.argsort()[:3].tolist()
    last = len(prompt) - 1
    samples = [
        Sample(last, GREEDY, mask=packed(set(worst))),
        Sample(last, GREEDY),
        *(Sample(last, Sampling(2.0, seed=s), mask=packed(set(worst))) for s in range(8)),
    ]

    [tokens] = open_engine(qwen3).execute(Batch(0, [Row(prompt, 0, PAGES, samples)])).tokens

    assert [max(worst, key=lambda token: float(logits[token])), int(logits.argmax())] == tokens[:2]
    assert set(tokens[2:]) <= set(worst)


def test_probes_see_what_the_reference_sees(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Each kind at a token of its own choice, beside rows that draw or ask for nothing."""
    prompt = prompts(16)[7]
    wanted = qwen3.logits(prompt)
    last = len(prompt) - 1
    probes = [
        Probe(2, "logits"),
        Probe(last, "distribution", top=5),
        Probe(0, "logprobs", tokens=[3, 1, 3]),
        Probe(last, "entropy"),
        Probe(1, "hidden-state"),
    ]
    rows = [Row([9], 0, [30]), Row(prompt, 0, PAGES, [Sample(last, GREEDY)], probes)]

    result = open_engine(qwen3).execute(Batch(0, rows))

    assert [[], [int(wanted[-1].argmax())]] == result.tokens
    assert [] == result.probes[0]
    logits, likeliest, logprobs, entropy, state = result.probes[1]
    torch.testing.assert_close(floats(logits), wanted[2].float(), rtol=1e-4, atol=1e-4)
    top = wanted[-1].softmax(-1).topk(5)
    assert top.indices.tolist() == likeliest.tokens
    torch.testing.assert_close(floats(likeliest), top.values.float(), rtol=1e-4, atol=1e-5)
    chosen = wanted[0].log_softmax(-1)[[3, 1, 3]]
    torch.testing.assert_close(floats(logprobs), chosen.float(), rtol=1e-4, atol=1e-4)
    logs = wanted[-1].double().log_softmax(-1)
    assert float(floats(entropy)) == pytest.approx(float(-(logs.exp() * logs).sum()), rel=1e-4)
    with torch.inference_mode():
        states = qwen3.model(torch.tensor([prompt]), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(floats(state), states[0, 1].float(), rtol=1e-3, atol=1e-3)


def test_a_probe_through_a_mask(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """What is not allowed has no probability and no share of the entropy."""
    mask = packed({4, 8})
    probes = [
        Probe(0, "distribution", top=3, mask=mask),
        Probe(0, "entropy", mask=mask),
        Probe(0, "logprobs", tokens=[4, 5], mask=mask),
    ]

    [found] = open_engine(qwen3).execute(Batch(0, [Row([9], 0, [0], [], probes)])).probes

    shares = qwen3.logits([9])[-1][[4, 8]].double().softmax(-1)
    assert {4, 8} == set(found[0].tokens[:2])
    torch.testing.assert_close(
        floats(found[0]).double()[:2], shares.sort(descending=True).values, rtol=1e-4, atol=1e-6
    )
    assert 0.0 == float(floats(found[0])[2])
    assert float(floats(found[1])) == pytest.approx(float(-(shares * shares.log()).sum()), rel=1e-4)
    assert -float("inf") == float(floats(found[2])[1])


def test_positions_of_its_own(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """A shift of all positions changes nothing, since only distances count; a gap does."""
    prompt = prompts(16)[6]
    engine = open_engine(qwen3)

    def probed(positions: list[int] | None) -> torch.Tensor:
        row = Row(prompt, 0, PAGES, [], [Probe(len(prompt) - 1, "logits")], positions)
        return floats(engine.execute(Batch(0, [row])).probes[0][0])

    plain = probed(None)
    shifted = probed(list(range(40, 40 + len(prompt))))
    gap = probed([*range(len(prompt) - 1), len(prompt) + 50])

    torch.testing.assert_close(plain, shifted, rtol=1e-3, atol=1e-3)
    assert float((plain - gap).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (Row([1, 2], 0, [0], [Sample(2, GREEDY)]), "sample 0 is after none of its 2 tokens"),
        (Row([1, 2], 0, [0], [], [Probe(-1, "entropy")]), "probe 0 is after none of its 2 tokens"),
        (Row([1], 0, [0], [Sample(0, GREEDY, mask=b"\xff")]), "sample 0 has a mask of 1 bytes"),
        (Row([1], 0, [0], [Sample(0, GREEDY, mask=bytes(64))]), "sample 0 has a mask that allows"),
        (Row([1], 0, [0], [], [Probe(0, "logprobs", tokens=[512])]), "probe 0 asks for tokens"),
        (Row([1], 0, [0], positions=[256]), "positions are not 1 within the context"),
        (Row([1], 0, [0], positions=[1, 2]), "positions are not 1 within the context"),
    ],
)
def test_refuses_what_cannot_be_asked(
    qwen3: Checkpoint, open_engine: OpenEngine, row: Row, complaint: str
) -> None:
    """An impossible question names its row and its place."""
    with pytest.raises(BackendError, match=f"step 3, row 0: {complaint}"):
        open_engine(qwen3).execute(Batch(3, [row]))
