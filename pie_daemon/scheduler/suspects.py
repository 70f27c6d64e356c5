"""Finds the request whose rows kill the worker, so that it does not hold up everybody for ever.

Who was in batches that killed a worker and has got nowhere since is put on trial: it has a batch to
itself until it has got further. The one that kills even so, twice, is convicted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pie_daemon.errors import PieError
from pie_daemon.scheduler.request import Request

NUM_DEATHS_TO_TRY = 2
"""Anybody can be in one fatal batch by chance."""
NUM_DEATHS_TO_CONVICT = 3
NUM_DEATHS_ALONE = 2
"""So many of them with a batch to itself: a single one can be chance as well."""
NUM_ROWS_TO_ACQUIT = 2
"""The one that it died in, perhaps as part of a longer one, and the one after that."""


@dataclass(slots=True)
class _Suspicion:
    length: int
    """Of its context, computed by the fatal row."""
    num_deaths: int = 0
    num_alone: int = 0
    num_rows: int = 0
    """That reached so far since."""


def guilty(cause: str) -> PieError:
    return PieError(
        "internal",
        "workers died again and again when they computed this request, the last "
        f"{NUM_DEATHS_ALONE} with nothing else in the batch, so it is given up: {cause}",
    )


class Suspects:
    def __init__(self) -> None:
        self._suspicions: dict[Request, _Suspicion] = {}

    def first(self, waiting: Collection[Request]) -> Collection[Request]:
        """Who may be admitted: before anybody else the one that a worker died with alone, so that
        it is the next worker's first, and cannot die again only because it came so late."""
        accused = [one for one in waiting if self._num_alone(one)] if self._suspicions else []
        return accused or waiting

    def choose(self, running: Collection[Request]) -> Collection[Request]:
        """Whose rows may be in the next batch."""
        if not self._suspicions:
            return running
        tried = [one for one in running if self._is_on_trial(one) and not one.held_back]
        return [max(tried, key=self._num_alone)] if tried else running

    def died(self, batch: Collection[Request]) -> Request | None:
        """The worker died with rows of these in flight, before anything was forgotten of them; the
        one that is guilty of it, if that is certain."""
        for request in batch:
            suspicion = self._suspicions.setdefault(request, _Suspicion(0))
            suspicion.length = max(suspicion.length, request.context.num_computed)
            suspicion.num_deaths += 1
            suspicion.num_alone += len(batch) == 1
            suspicion.num_rows = 0
        return next(filter(self._is_guilty, batch), None)

    def landed(self, batch: Iterable[Request]) -> None:
        for request in batch if self._suspicions else ():
            suspicion = self._suspicions.get(request)
            if suspicion is not None and request.context.num_computed >= suspicion.length:
                suspicion.num_rows += 1
                if suspicion.num_rows == NUM_ROWS_TO_ACQUIT:
                    del self._suspicions[request]

    def leave(self, request: Request) -> None:
        """It has ended."""
        self._suspicions.pop(request, None)

    def _num_alone(self, request: Request) -> int:
        suspicion = self._suspicions.get(request)
        return 0 if suspicion is None else suspicion.num_alone

    def _is_on_trial(self, request: Request) -> bool:
        suspicion = self._suspicions.get(request)
        return suspicion is not None and suspicion.num_deaths >= NUM_DEATHS_TO_TRY

    def _is_guilty(self, request: Request) -> bool:
        suspicion = self._suspicions[request]
        enough = suspicion.num_deaths >= NUM_DEATHS_TO_CONVICT
        return enough and suspicion.num_alone >= NUM_DEATHS_ALONE
