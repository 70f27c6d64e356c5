"""Linear layers of which each rank has a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from pie_backend.engine.ops.base import Linear
from pie_backend.engine.parallel.team import Team


@dataclass(frozen=True, slots=True)
class SummedLinear:
    """Each rank has some of the inputs; what they make is added up. Implements `Linear`.

    Only rank 0 may have a bias, or it would be added more than once.
    """

    part: Linear
    team: Team

    def around(self, wrap: Callable[[Linear], Linear]) -> SummedLinear:
        """The same with something put around each rank's part, before the sum."""
        return replace(self, part=wrap(self.part))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.team.sum(self.part(x))

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self(x))

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self(x) * other

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        # One of the ranks adds it, fused, and the sum has it once.
        return self.team.sum(self.part.plus(x, other) if self.team.rank == 0 else self.part(x))


@dataclass(frozen=True, slots=True)
class GatheredLinear:
    """Each rank has as many of the outputs; every rank gets all. Implements `Linear`."""

    part: Linear
    team: Team
    num_out: int
    """Of all together; beyond that the parts are padding."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.team.gather(self.part(x)), dim=-1)[:, : self.num_out].contiguous()

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self(x))

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self(x) * other

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self(x) + other
