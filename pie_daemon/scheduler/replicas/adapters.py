"""Adapters of all replicas: an open one is loaded on each, since any may get a context of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pie_daemon.errors import PieError
from pie_daemon.scheduler.adapters import Adapters, Opening


@dataclass(frozen=True, slots=True)
class Openings:
    """One program's hold on an adapter, everywhere."""

    parts: list[tuple[Adapters, Opening]]

    @property
    def done(self) -> bool:
        return all(opening.done for _, opening in self.parts)

    @property
    def digest(self) -> str | None:
        digests = {opening.digest for _, opening in self.parts}
        return digests.pop() if len(digests) == 1 else None

    @property
    def error(self) -> PieError | None:
        """The first one's; or that replicas have loaded different content, once all are done."""
        error = next((opening.error for _, opening in self.parts if opening.error), None)
        if error is None and self.done and self.digest is None:
            return PieError("internal", "the adapter has changed while it was loaded: try again")
        return error


class ReplicaAdapters:
    def __init__(self, alive: Callable[[], Sequence[Adapters]]) -> None:
        """`alive`: of the replicas that compute; of all when none does."""
        self._alive = alive

    def open(self, path: Path, notify: Callable[[], None]) -> Openings:
        """`notify` is called for each replica, once it is done there.

        Raises: PieError: `not-found`: there are no such files.
        """
        openings = Openings([])
        try:
            for adapters in self._alive():
                openings.parts.append((adapters, adapters.open(path, notify)))
        except PieError:
            self.close(openings)
            raise
        return openings

    def close(self, openings: Openings) -> None:
        for adapters, opening in openings.parts:
            adapters.close(opening)
