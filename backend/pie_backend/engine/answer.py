"""From hidden states to what the rows of a batch asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pie_backend.batch import Batch, BatchResult, Logprobs, Probed, Sample
from pie_backend.engine.draw import draw
from pie_backend.engine.probes import look
from pie_backend.engine.ragged import RaggedBatch
from pie_backend.engine.transformer import Decoder


@dataclass(frozen=True, slots=True)
class States:
    """Of tokens of a flat batch, before the last norm."""

    hidden: torch.Tensor
    """[tokens, hidden]"""
    places: list[int]
    """Of these tokens in the flat batch, ascending."""

    def at(self, places: list[int]) -> torch.Tensor:
        if places == self.places:
            return self.hidden
        rows = {place: row for row, place in enumerate(self.places)}
        index = torch.tensor([rows[place] for place in places], device=self.hidden.device)
        return self.hidden[index]


def asked_places(flat: RaggedBatch) -> list[int]:
    """Of the tokens whose states are looked at, ascending."""
    drawn = {span.begin + one.index for span in flat.spans for one in span.row.samples}
    probed = {span.begin + one.index for span in flat.spans for one in span.row.probes}
    return sorted(drawn | probed)


def answer(
    batch: Batch,
    decoder: Decoder,
    states: States,
    flat: RaggedBatch,
    draws_on: torch.device,
) -> BatchResult:
    tokens, logprobs = _draw(batch, decoder, states, flat, draws_on)
    return BatchResult(batch.step, tokens, logprobs, _look(batch, decoder, states, flat))


def _draw(
    batch: Batch,
    decoder: Decoder,
    states: States,
    flat: RaggedBatch,
    draws_on: torch.device,
) -> tuple[list[list[int]], list[list[Logprobs | None]]]:
    tokens: list[list[int]] = [[] for _ in batch.rows]
    rows, places, samples = [], [], []
    for number, span in zip(flat.order, flat.spans, strict=True):
        for sample in span.row.samples:
            rows.append(number)
            places.append(span.begin + sample.index)
            samples.append(sample)
    if not samples:
        return tokens, []
    drawn, found = _drawn(decoder, states.at(places), samples, draws_on)
    for number, token in zip(rows, drawn, strict=True):
        tokens[number].append(token)
    if not found:
        return tokens, []
    logprobs: list[list[Logprobs | None]] = [[] for _ in batch.rows]
    for number, one in zip(rows, found, strict=True):
        logprobs[number].append(one)
    return tokens, logprobs


def _drawn(
    decoder: Decoder, hidden: torch.Tensor, samples: list[Sample], draws_on: torch.device
) -> tuple[list[int], list[Logprobs | None]]:
    """One token for each row of hidden [R, hidden], and log probabilities as `draw` has them."""
    if hidden.device == draws_on and all(sample.is_plain for sample in samples):
        return decoder.greedy(hidden), []
    return draw(decoder.logits(hidden).to(draws_on), samples, decoder.likeliest)


def _look(batch: Batch, decoder: Decoder, states: States, flat: RaggedBatch) -> list[list[Probed]]:
    probing = [span for span in flat.spans if span.row.probes]
    if not probing:
        return []
    probes = [probe for span in probing for probe in span.row.probes]
    places = [span.begin + probe.index for span in probing for probe in span.row.probes]
    found = iter(look(decoder, states.at(places), probes))
    answers: list[list[Probed]] = [[] for _ in batch.rows]
    for number, span in zip(flat.order, flat.spans, strict=True):
        answers[number] = [next(found) for _ in span.row.probes]
    return answers
