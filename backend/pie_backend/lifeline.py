"""How a backend is ended while it is built, and how its death is heard of."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock


class Lifeline:
    """Between who has a backend built and what builds it, for as long as the backend lives.

    Thread-safe. A builder that knows nothing of lifelines may leave it alone: its backend then
    cannot be ended while it is built, and a death shows with the next call.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kill: Callable[[], None] | None = None
        self._heard: Callable[[], None] | None = None
        self._is_cut = False
        self._cause: str | None = None

    @property
    def is_cut(self) -> bool:
        return self._is_cut

    @property
    def cause(self) -> str | None:
        """What it died of, if it is known to be dead."""
        return self._cause

    def cut(self) -> None:
        """Ends the backend at once; if it is being built, its builder raises BackendError."""
        with self._lock:
            self._is_cut, kill = True, self._kill
        if kill is not None:
            kill()

    def hold(self, kill: Callable[[], None]) -> None:
        """For the builder: what `cut` has to do, from any thread."""
        with self._lock:
            self._kill, is_cut = kill, self._is_cut
        if is_cut:
            kill()

    def listen(self, heard: Callable[[], None]) -> None:
        """`heard` is called, by any thread, when the backend dies with nobody asking it anything;
        at once if it has."""
        with self._lock:
            self._heard, is_dead = heard, self._cause is not None
        if is_dead:
            heard()

    def report(self, cause: str) -> None:
        """For the builder: the backend has died of that."""
        with self._lock:
            self._cause, heard = cause, self._heard
        if heard is not None:
            heard()
