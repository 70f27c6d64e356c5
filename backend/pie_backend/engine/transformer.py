"""The decoder that every supported architecture is an instance of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from pie_backend.engine.attention.base import AttentionStep
from pie_backend.engine.ops.base import Linear, Norm, Placement, Screened
from pie_backend.engine.ragged import RaggedBatch


@dataclass(frozen=True, slots=True)
class SelfAttention:
    layer: int
    head_dim: int
    qkv: Linear
    """Query, key and value stacked; query and key rows interleaved (see `rope.interleave`)."""
    output: Linear
    place: Placement

    def __call__(
        self,
        x: torch.Tensor,
        hidden: torch.Tensor,
        turns: torch.Tensor,
        step: AttentionStep,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Normed x and the residual stream, both [N, hidden] -> the residual stream, of the tokens
        kept"""
        qkv = self.qkv(x).view(x.shape[0], -1, self.head_dim)
        q, k, v = self.place(qkv, turns)
        seen = step.attend(self.layer, q, k, v)
        if kept is not None:
            seen, hidden = seen[kept], hidden[kept]
        return self.output.plus(seen, hidden)


@dataclass(frozen=True, slots=True)
class MLP:
    gate: Linear
    up: Linear
    down: Linear

    def __call__(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """down(silu(gate(x)) * up(x)) + hidden, all [N, hidden]"""
        return self.down.plus(self.up.times(x, self.gate.silu(x)), hidden)


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    attention_norm: Norm
    attention: SelfAttention
    mlp_norm: Norm
    mlp: MLP

    def __call__(
        self,
        hidden: torch.Tensor,
        turns: torch.Tensor,
        step: AttentionStep,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        hidden = self.attention(self.attention_norm(hidden), hidden, turns, step, kept)
        return self.mlp(self.mlp_norm(hidden), hidden)


class Walk(Protocol):
    """Rows of one token each on their way through a burst, in the order of the flat batch. Each
    call is about the next token of each, and enters pages as they come: there must be room."""

    def states(self, tokens: list[int]) -> torch.Tensor:
        """-> [R, hidden], after the last norm; overwritten by the next call."""
        ...

    def likeliest(self, tokens: list[int], *, goes_on: bool = True) -> list[int]:
        """-> of each row the lowest id with the largest logit behind it. Without going on it is
        about the tokens of the batch itself."""
        ...


class Layers(Protocol):
    """All layers of a decoder."""

    @property
    def each(self) -> Sequence[DecoderLayer]: ...

    def __call__(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        step: AttentionStep,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden [N, hidden], which may be overwritten, int64 positions [N] -> [N, hidden]; or of
        the tokens `kept` alone, int64 [K]: of the others the last layer computes keys and values,
        no more."""
        ...

    def walk(self, decoder: Decoder, batch: RaggedBatch, step: AttentionStep) -> Walk | None:
        """From that batch of rows of one token, with the ends of that decoder, whose layers they
        are. None: such rows have to be planned anew."""
        ...


@dataclass(frozen=True, slots=True)
class OneByOne:
    """Implements `Layers`."""

    each: list[DecoderLayer]

    def __call__(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        step: AttentionStep,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        turns = self.each[0].attention.place.turns(positions)
        for layer in self.each[:-1]:
            hidden = layer(hidden, turns, step)
        return self.each[-1](hidden, turns, step, kept)

    def walk(self, decoder: Decoder, batch: RaggedBatch, step: AttentionStep) -> Walk | None:
        return None


@dataclass(frozen=True, slots=True)
class Decoder:
    embedding: torch.Tensor
    """[vocab, hidden]"""
    layers: Layers
    norm: Norm
    head: Linear
    likeliest: Callable[[torch.Tensor], list[int]]
    """See `Operators`, like the next."""
    screen: Screened | None = None

    def hidden_states(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        step: AttentionStep,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """int64 tokens and positions [N] -> [N, hidden], before the last norm; see `Layers` about
        `kept`."""
        return self.layers(F.embedding(tokens, self.embedding), positions, step, kept)

    def walk(self, batch: RaggedBatch, step: AttentionStep) -> Walk | None:
        """See `Layers`."""
        return self.layers.walk(self, batch, step)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[R, hidden] -> [R, vocab]"""
        return self.head(self.norm(hidden))

    def greedy(self, hidden: torch.Tensor) -> list[int]:
        """[R, hidden] -> of each row the lowest id with the largest logit."""
        states = self.norm(hidden)
        found = None if self.screen is None else self.screen(states)
        return self.likeliest(self.head(states)) if found is None else found
