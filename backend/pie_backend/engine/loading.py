"""From a checkpoint to the decoder, or to one rank's part of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.ops.base import Linear, Norm, Operators
from pie_backend.engine.parallel.division import own_part
from pie_backend.engine.parallel.linear import GatheredLinear, SummedLinear
from pie_backend.engine.parallel.team import Range, Team, own, own_rounded_up
from pie_backend.engine.rope import interleave, rotation_table
from pie_backend.engine.transformer import MLP, Decoder, DecoderLayer, SelfAttention
from pie_backend.engine.weights import Checkpoint


def load_decoder(
    config: DecoderConfig, checkpoint: Checkpoint, ops: Operators, team: Team
) -> Decoder:
    """config: of the whole model; the decoder has this rank's part of its layers.

    Raises:
        BackendError: the checkpoint does not hold what the config promises.
    """
    rotations = rotation_table(config.rope, config.head_dim, config.max_context)
    rotations = rotations.to(checkpoint.place)
    loader = _Loader(config, checkpoint, ops, rotations, team)
    embedding = checkpoint.take("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
    head = loader.head(embedding)
    is_shared = config.tied_embeddings and team.size == 1
    return Decoder(
        embedding=embedding,
        layers=ops.layers([loader.layer(i) for i in range(config.num_layers)]),
        norm=loader.norm("model.norm"),
        head=head,
        likeliest=ops.likeliest,
        screen=ops.screen(head, embedding) if is_shared else None,
    )


@dataclass(frozen=True, slots=True)
class _Loader:
    """Ranks divide what comes out of query, key, value, gate and up, and what goes into output and
    down, whose results they add up; each has the embedding whole, and a part of the vocabulary."""

    config: DecoderConfig
    checkpoint: Checkpoint
    ops: Operators
    rotations: torch.Tensor
    """complex64 [max_context, D/2]"""
    team: Team

    def layer(self, index: int) -> DecoderLayer:
        prefix = f"model.layers.{index}"
        return DecoderLayer(
            attention_norm=self.norm(f"{prefix}.input_layernorm"),
            attention=self.attention(index, f"{prefix}.self_attn"),
            mlp_norm=self.norm(f"{prefix}.post_attention_layernorm"),
            mlp=self.mlp(f"{prefix}.mlp"),
        )

    def norm(self, name: str) -> Norm:
        weight = self.checkpoint.take(f"{name}.weight", self.config.hidden_size)
        return self.ops.norm(weight, self.config.rms_norm_eps)

    def attention(self, index: int, prefix: str) -> SelfAttention:
        config, part = self.config, own_part(self.config, self.team.size)
        num_in = config.num_heads * config.head_dim
        output = self._by_inputs(
            f"{prefix}.o_proj", config.hidden_size, num_in, bias=config.output_bias
        )
        heads = (part.num_heads, part.num_kv_heads)
        norms = self._head_norms(prefix, heads) if config.qk_norm else None
        place = self.ops.placement(self.rotations, heads, norms, config.rms_norm_eps)
        return SelfAttention(index, config.head_dim, self._qkv(prefix), output, place)

    def _qkv(self, prefix: str) -> Linear:
        config = self.config
        weights: list[torch.Tensor] = []
        biases: list[torch.Tensor] = []
        for name, num_heads in (
            ("q_proj", config.num_heads),
            ("k_proj", config.num_kv_heads),
            ("v_proj", config.num_kv_heads),
        ):
            size = (num_heads * config.head_dim, config.hidden_size)
            weight, bias = self._rows(f"{prefix}.{name}", *size, bias=config.qkv_bias)
            weights.append(weight if name == "v_proj" else interleave(weight, config.head_dim))
            if bias is not None:
                biases.append(bias if name == "v_proj" else interleave(bias, config.head_dim))
        return self.ops.linear(torch.cat(weights), torch.cat(biases) if biases else None)

    def _head_norms(self, prefix: str, heads: tuple[int, int]) -> torch.Tensor:
        """float32 [Hq + Hkv, D], interleaved like the rows they norm"""
        rows: list[torch.Tensor] = []
        for name, num_heads in zip(("q_norm", "k_norm"), heads, strict=True):
            weight = self.checkpoint.take(f"{prefix}.{name}.weight", self.config.head_dim).float()
            rows.append(interleave(weight, self.config.head_dim).expand(num_heads, -1))
        return torch.cat(rows)

    def mlp(self, prefix: str) -> MLP:
        hidden_size, inner = self.config.hidden_size, self.config.intermediate_size
        bias = self.config.mlp_bias
        return MLP(
            gate=self._by_outputs(f"{prefix}.gate_proj", inner, hidden_size, bias=bias),
            up=self._by_outputs(f"{prefix}.up_proj", inner, hidden_size, bias=bias),
            down=self._by_inputs(f"{prefix}.down_proj", hidden_size, inner, bias=bias),
        )

    def head(self, embedding: torch.Tensor) -> Linear:
        vocab_size, hidden_size = self.config.vocab_size, self.config.hidden_size
        only = self._only(own_rounded_up(self.team, vocab_size))
        if not self.config.tied_embeddings:
            weight = self.checkpoint.take("lm_head.weight", vocab_size, hidden_size, only=only)
        else:
            weight = embedding if only is None else embedding[slice(*only)]
        if only is None:
            return self.ops.linear(weight)
        padding = -(-vocab_size // self.team.size) - len(weight)
        part = self.ops.linear(F.pad(weight, (0, 0, 0, padding)))
        return GatheredLinear(part, self.team, vocab_size)

    def _by_outputs(self, name: str, num_out: int, num_in: int, *, bias: bool) -> Linear:
        return self.ops.linear(*self._rows(name, num_out, num_in, bias=bias))

    def _rows(
        self, name: str, num_out: int, num_in: int, *, bias: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight [out, in] and bias [out] of this rank's outputs."""
        only = self._only(own(self.team, num_out))
        weight = self.checkpoint.take(f"{name}.weight", num_out, num_in, only=only)
        if not bias:
            return weight, None
        return weight, self.checkpoint.take(f"{name}.bias", num_out, only=only)

    def _by_inputs(self, name: str, num_out: int, num_in: int, *, bias: bool) -> Linear:
        only = self._only(own(self.team, num_in))
        weight = self.checkpoint.take(f"{name}.weight", num_out, num_in, only=only, dim=1)
        # A sum has it once.
        has_bias = bias and self.team.rank == 0
        part = self.ops.linear(
            weight, self.checkpoint.take(f"{name}.bias", num_out) if has_bias else None
        )
        return part if only is None else SummedLinear(part, self.team)

    def _only(self, part: Range) -> Range | None:
        """None where there is nobody to divide with."""
        return None if self.team.size == 1 else part
