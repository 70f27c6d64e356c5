"""The ranks that compute one model together, as one of them sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

Range = tuple[int, int]
"""[begin, end)"""


class Team(Protocol):
    """All ranks call the same methods in the same order; each call waits for all of them."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of all ranks' x, the same bits everywhere; x may be overwritten.

        Raises: RankLost."""
        ...

    def gather(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Every rank's x, of one shape, in the order of ranks.

        Raises: RankLost."""
        ...

    def least(self, number: int) -> int:
        """The smallest of all ranks' numbers.

        Raises: RankLost."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """Nobody to wait for."""

    rank: int = 0
    size: int = 1

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def gather(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]

    def least(self, number: int) -> int:
        return number


ALONE: Team = Alone()


def own(team: Team, count: int) -> Range:
    """This rank's part of so many rows or columns, all parts being equal."""
    share = count // team.size
    return team.rank * share, (team.rank + 1) * share


def own_rounded_up(team: Team, count: int) -> Range:
    """The same for any count: the last ranks have less, perhaps nothing."""
    share = -(-count // team.size)
    return min(count, team.rank * share), min(count, (team.rank + 1) * share)
