"""From the files of an adapter to tensors that fit the decoder's own layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError

from pie_backend.adapter_dir import WEIGHTS_FILE, AdapterFiles
from pie_backend.base import AdapterError
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.lora import Adapter, LowRank, Site
from pie_backend.engine.parallel.team import Range, Team, own
from pie_backend.engine.rope import interleave

_SHOWN = 3
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer of the checkpoint; several may be one of the decoder's."""

    module: str
    num_out: int
    num_in: int
    targeted: bool
    by_inputs: bool
    """Ranks divide its inputs, not its outputs."""
    team: Team
    interleaved_by: int | None = None
    """The head's dimension, where the decoder has the rows in another order."""

    @property
    def inputs(self) -> Range:
        """Those of this rank."""
        return own(self.team, self.num_in) if self.by_inputs else (0, self.num_in)

    @property
    def outputs(self) -> Range:
        return (0, self.num_out) if self.by_inputs else own(self.team, self.num_out)

    @property
    def num_own_outputs(self) -> int:
        begin, end = self.outputs
        return end - begin

    @property
    def name_a(self) -> str:
        return f"base_model.model.{self.module}.lora_A.weight"

    @property
    def name_b(self) -> str:
        return f"base_model.model.{self.module}.lora_B.weight"


class AdapterLoader:
    """One adapter on its way into memory. Raises AdapterError."""

    def __init__(
        self, files: AdapterFiles, config: DecoderConfig, place: torch.device, team: Team
    ) -> None:
        """Tensors go to `place`."""
        self._files = files
        self._config = config
        self._place = place
        self._team = team
        self._where = files.path / WEIGHTS_FILE
        self._sites = dict(self._targeted_sites())
        self._check_names()
        self._check_shapes()

    @property
    def num_bytes(self) -> int:
        """Of the tensors to come on all ranks, known before there are any."""
        return self._team.size * _FLOAT_BYTES * sum(map(self._num_own, self._sites.values()))

    def _num_own(self, site: list[Projection]) -> int:
        begin, end = site[0].inputs
        return self._rank_of(site) * (end - begin + sum(one.num_own_outputs for one in site))

    def load(self) -> Adapter:
        try:
            tensors = safetensors.torch.load(self._files.weights)
        except (SafetensorError, ValueError, KeyError) as error:
            raise AdapterError(
                "invalid-argument", f"{self._where} cannot be read: {error}"
            ) from error
        if not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise AdapterError("unsupported", f"{self._where}: only float tensors are supported")
        parts = {name: self._part(site, tensors) for name, site in self._sites.items()}
        return Adapter(self._files.digest, self.num_bytes, parts)

    def _targeted_sites(self) -> Iterator[tuple[Site, list[Projection]]]:
        for layer in range(self._config.num_layers):
            for name, projections in self._layout(f"model.layers.{layer}").items():
                if any(one.targeted for one in projections):
                    yield (layer, name), projections

    def _layout(self, prefix: str) -> dict[str, list[Projection]]:
        config = self._config
        hidden, inner, dim = config.hidden_size, config.intermediate_size, config.head_dim
        num_q, num_kv = config.num_heads * dim, config.num_kv_heads * dim

        def projection(
            name: str,
            num_out: int,
            num_in: int,
            interleaved_by: int | None = None,
            by_inputs: bool = False,
        ) -> Projection:
            module = f"{prefix}.{name}"
            targeted = self._files.config.targets(module)
            size = (num_out, num_in)
            return Projection(module, *size, targeted, by_inputs, self._team, interleaved_by)

        return {
            "qkv": [
                projection("self_attn.q_proj", num_q, hidden, dim),
                projection("self_attn.k_proj", num_kv, hidden, dim),
                projection("self_attn.v_proj", num_kv, hidden),
            ],
            "output": [projection("self_attn.o_proj", hidden, num_q, by_inputs=True)],
            "gate": [projection("mlp.gate_proj", inner, hidden)],
            "up": [projection("mlp.up_proj", inner, hidden)],
            "down": [projection("mlp.down_proj", hidden, inner, by_inputs=True)],
        }

    def _targeted(self) -> list[Projection]:
        return [one for site in self._sites.values() for one in site if one.targeted]

    def _rank_of(self, site: list[Projection]) -> int:
        config = self._files.config
        return sum(config.rank_of(one.module) for one in site if one.targeted)

    def _check_names(self) -> None:
        """Every tensor is used, and every module that the configuration names has its own."""
        wanted = {name for one in self._targeted() for name in (one.name_a, one.name_b)}
        found = set(self._files.shapes)
        if not wanted:
            raise AdapterError(
                "unsupported",
                f"{self._files.path}: `target_modules` names none of q_proj, k_proj, v_proj, "
                "o_proj, gate_proj, up_proj, down_proj of this model",
            )
        if found - wanted:
            raise AdapterError(
                "unsupported",
                f"{self._where} has {_some(found - wanted)}, which belong to no projection of "
                "this model that `target_modules` names",
            )
        if wanted - found:
            raise AdapterError(
                "invalid-argument",
                f"{self._where} lacks {_some(wanted - found)}, which `target_modules` names",
            )

    def _check_shapes(self) -> None:
        for one in self._targeted():
            rank = self._files.config.rank_of(one.module)
            wanted = {one.name_a: (rank, one.num_in), one.name_b: (one.num_out, rank)}
            for name, shape in wanted.items():
                found = self._files.shapes[name]
                if found != shape:
                    raise AdapterError(
                        "invalid-argument",
                        f"{self._where}: {name} has shape {list(found)}; this model and the "
                        f"adapter's configuration want {list(shape)}",
                    )

    def _part(self, site: list[Projection], tensors: dict[str, torch.Tensor]) -> LowRank:
        """The projections of one site over one another: each has its own columns of b."""
        targeted = [one for one in site if one.targeted]
        first, last = site[0].inputs
        # Copied, so that only this rank's part stays in memory.
        a = torch.cat([tensors[one.name_a][:, first:last].float() for one in targeted])
        b = torch.zeros(sum(one.num_own_outputs for one in site), len(a))
        row = column = 0
        for one in site:
            if one.targeted:
                block = self._scaled(one, tensors[one.name_b])
                b[row : row + len(block), column : column + block.shape[1]] = block
                column += block.shape[1]
            row += one.num_own_outputs
        return LowRank(a.to(self._place), b.to(self._place))

    def _scaled(self, one: Projection, b: torch.Tensor) -> torch.Tensor:
        scaled = b[slice(*one.outputs)].float() * self._files.config.scale_of(one.module)
        return scaled if one.interleaved_by is None else interleave(scaled, one.interleaved_by)


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
