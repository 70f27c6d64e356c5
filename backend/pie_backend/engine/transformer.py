"""The decoder that every supported architecture is an instance of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pie_backend.engine.attention.base import AttentionStep
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.ops.base import Linear, Norm, Operators, Placement
from pie_backend.engine.rope import interleave, rotation_table
from pie_backend.engine.weights import Checkpoint


@dataclass(frozen=True, slots=True)
class SelfAttention:
    layer: int
    head_dim: int
    qkv: Linear
    """Query, key and value stacked; query and key rows interleaved (see `rope.interleave`)."""
    output: Linear
    place: Placement

    def __call__(
        self, x: torch.Tensor, hidden: torch.Tensor, turns: torch.Tensor, step: AttentionStep
    ) -> torch.Tensor:
        """Normed x and the residual stream, both [N, hidden] -> the residual stream"""
        qkv = self.qkv(x).view(x.shape[0], -1, self.head_dim)
        q, k, v = self.place(qkv, turns)
        return self.output.plus(step.attend(self.layer, q, k, v), hidden)


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
        self, hidden: torch.Tensor, turns: torch.Tensor, step: AttentionStep
    ) -> torch.Tensor:
        hidden = self.attention(self.attention_norm(hidden), hidden, turns, step)
        return self.mlp(self.mlp_norm(hidden), hidden)


@dataclass(frozen=True, slots=True)
class Decoder:
    embedding: torch.Tensor
    """[vocab, hidden]"""
    layers: list[DecoderLayer]
    norm: Norm
    head: Linear

    def hidden_states(
        self, tokens: torch.Tensor, positions: torch.Tensor, step: AttentionStep
    ) -> torch.Tensor:
        """int64 tokens and positions [N] -> [N, hidden], before the last norm"""
        hidden = F.embedding(tokens, self.embedding)
        turns = self.layers[0].attention.place.turns(positions)
        for layer in self.layers:
            hidden = layer(hidden, turns, step)
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[R, hidden] -> [R, vocab]"""
        return self.head(self.norm(hidden))


def load_decoder(config: DecoderConfig, checkpoint: Checkpoint, ops: Operators) -> Decoder:
    """Raises BackendError when the checkpoint does not hold what the config promises."""
    rotations = rotation_table(config.rope, config.head_dim, config.max_context)
    rotations = rotations.to(checkpoint.place)
    loader = _Loader(config, checkpoint, ops, rotations)
    embedding = checkpoint.take("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
    return Decoder(
        embedding=embedding,
        layers=[loader.layer(i) for i in range(config.num_layers)],
        norm=loader.norm("model.norm"),
        head=loader.head(embedding),
    )


@dataclass(frozen=True, slots=True)
class _Loader:
    config: DecoderConfig
    checkpoint: Checkpoint
    ops: Operators
    rotations: torch.Tensor
    """complex64 [max_context, D/2]"""

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
        config = self.config
        output = self._linear(
            f"{prefix}.o_proj",
            config.hidden_size,
            config.num_heads * config.head_dim,
            bias=config.output_bias,
        )
        norms = self._head_norms(prefix) if config.qk_norm else None
        heads = (config.num_heads, config.num_kv_heads)
        place = self.ops.placement(self.rotations, heads, norms, config.rms_norm_eps)
        return SelfAttention(index, config.head_dim, self._qkv(prefix), output, place)

    def _qkv(self, prefix: str) -> Linear:
        config = self.config
        head_dim, hidden_size = config.head_dim, config.hidden_size
        weights: list[torch.Tensor] = []
        biases: list[torch.Tensor] = []
        for name, num_heads in (
            ("q_proj", config.num_heads),
            ("k_proj", config.num_kv_heads),
            ("v_proj", config.num_kv_heads),
        ):
            weight = self.checkpoint.take(
                f"{prefix}.{name}.weight", num_heads * head_dim, hidden_size
            )
            weights.append(weight if name == "v_proj" else interleave(weight, head_dim))
            if config.qkv_bias:
                bias = self.checkpoint.take(f"{prefix}.{name}.bias", num_heads * head_dim)
                biases.append(bias if name == "v_proj" else interleave(bias, head_dim))
        return self.ops.linear(torch.cat(weights), torch.cat(biases) if biases else None)

    def _head_norms(self, prefix: str) -> torch.Tensor:
        """float32 [Hq + Hkv, D], interleaved like the rows they norm"""
        config = self.config
        rows: list[torch.Tensor] = []
        for name, num_heads in (("q_norm", config.num_heads), ("k_norm", config.num_kv_heads)):
            weight = self.checkpoint.take(f"{prefix}.{name}.weight", config.head_dim).float()
            rows.append(interleave(weight, config.head_dim).expand(num_heads, -1))
        return torch.cat(rows)

    def mlp(self, prefix: str) -> MLP:
        hidden_size, inner = self.config.hidden_size, self.config.intermediate_size
        bias = self.config.mlp_bias
        return MLP(
            gate=self._linear(f"{prefix}.gate_proj", inner, hidden_size, bias=bias),
            up=self._linear(f"{prefix}.up_proj", inner, hidden_size, bias=bias),
            down=self._linear(f"{prefix}.down_proj", hidden_size, inner, bias=bias),
        )

    def head(self, embedding: torch.Tensor) -> Linear:
        if self.config.tied_embeddings:
            return self.ops.linear(embedding)
        return self._linear("lm_head", self.config.vocab_size, self.config.hidden_size, bias=False)

    def _linear(self, name: str, num_out: int, num_in: int, *, bias: bool) -> Linear:
        weight = self.checkpoint.take(f"{name}.weight", num_out, num_in)
        return self.ops.linear(
            weight, self.checkpoint.take(f"{name}.bias", num_out) if bias else None
        )
