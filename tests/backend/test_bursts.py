"""Several passes for one batch draw what as many batches would have drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pie_backend.batch import BackendConfig, Batch, BatchResult, Row, Sample, Sampling
from pie_backend.bursts import Bursts
from pie_backend.dummy import DummyBackend, expected_logprobs, expected_tokens

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]
SAMPLED = Sampling(temperature=0.9, seed=7)


class Counting(DummyBackend):
    """`after` is called after every pass, with the number of passes so far."""

    def __init__(self, after: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(BackendConfig(name="test", kind="dummy", path="", kv_pages=32))
        self.num_passes = 0
        self.after = after

    def execute(self, batch: Batch) -> BatchResult:
        result = super().execute(batch)
        self.num_passes += 1
        self.after(self.num_passes)
        return result


def burst(backend: Bursts, passes: int, sampling: Sampling, until: list[int]) -> BatchResult:
    """All but the last token of each prompt first, then the burst, which begins with that one."""
    pages = [[2 * row, 2 * row + 1] for row in range(len(PROMPTS))]
    backend.execute(
        Batch(0, [Row(prompt[:-1], 0, own) for prompt, own in zip(PROMPTS, pages, strict=True)])
    )
    rows = [
        Row(prompt[-1:], len(prompt) - 1, own, [Sample(0, sampling)])
        for prompt, own in zip(PROMPTS, pages, strict=True)
    ]
    return backend.execute(Batch(1, rows, passes=passes, until=until))


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_a_burst_draws_what_single_passes_draw(sampling: Sampling) -> None:
    result = burst(Bursts(Counting()), 9, sampling, [])
    assert result.tokens == [expected_tokens(prompt, 9, sampling) for prompt in PROMPTS]


def test_all_passes_but_the_last_are_told_as_they_come() -> None:
    backend = Counting()
    prompt, told = PROMPTS[1], []
    row = Row(prompt[-1:], len(prompt) - 1, [0, 1], [Sample(0, SAMPLED)])
    backend.execute(Batch(0, [Row(prompt[:-1], 0, [0, 1])]))
    last = Bursts(backend).execute_telling(
        Batch(1, [row], passes=6, told=True),
        lambda result: told.append((backend.num_passes, result.tokens[0])),
    )
    tokens = expected_tokens(prompt, 6, SAMPLED)
    assert told == [(2 + number, [token]) for number, token in enumerate(tokens[:5])]
    assert [tokens[5:]] == last.tokens


def test_log_probabilities_come_for_every_token() -> None:
    backend = Counting()
    result = burst(Bursts(backend), 5, Sampling(logprobs=2), [])
    vocab_size = backend.info.vocab_size
    assert result.logprobs == [expected_logprobs(row, 2, vocab_size) for row in result.tokens]


def test_it_ends_when_any_row_draws_a_last_token() -> None:
    wanted = [expected_tokens(prompt, 9) for prompt in PROMPTS]
    last = wanted[1][3]
    first = min(row.index(last) for row in wanted if last in row)
    result = burst(Bursts(Counting()), 9, Sampling(), [last])
    assert result.tokens == [row[: first + 1] for row in wanted]


@pytest.mark.parametrize(("step", "num_passes"), [(1, 3), (0, 9), (2, 9)])
def test_an_interruption_ends_it_after_the_pass_at_hand(step: int, num_passes: int) -> None:
    """That of its own step only."""

    def after(number: int) -> None:
        if number == 4:  # the first was the prompts'
            bursts.interrupt(step)

    bursts = Bursts(Counting(after))
    assert num_passes == len(burst(bursts, 9, Sampling(), []).tokens[0])


def test_an_interruption_may_come_before_it() -> None:
    bursts = Bursts(Counting())
    bursts.interrupt(1)
    assert 1 == len(burst(bursts, 9, Sampling(), []).tokens[0])


def test_whoever_computes_is_asked_between_passes() -> None:
    backend = Counting()
    result = burst(Bursts(backend, lambda: backend.num_passes > 5), 9, Sampling(), [])
    assert 5 == len(result.tokens[0])
