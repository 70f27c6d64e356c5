"""How long to wait before the next try of something that fails."""

from __future__ import annotations


class Backoff:
    """Not at all after the first failure; then longer each time, up to a limit. What went well for
    a while begins anew. No clock of its own."""

    def __init__(self, first_s: float = 1.0, most_s: float = 60.0, well_s: float = 60.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._well_s = well_s
        self.num_failures = 0
        """In a row."""

    def failed(self, after_s: float = 0.0) -> float:
        """It went well for so long before; the pause until the next try."""
        if after_s >= self._well_s:
            self.num_failures = 0
        self.num_failures += 1
        if self.num_failures == 1:
            return 0.0
        # The exponent has a bound, since the number of failures has none.
        return min(self._most_s, self._first_s * 2.0 ** min(self.num_failures - 2, 32))

    def forgive(self) -> None:
        """What was wrong is known, and out of the way."""
        self.num_failures = 0
