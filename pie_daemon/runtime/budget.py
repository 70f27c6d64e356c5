"""The token budget of a launch, shared by everything that spends from it."""

from __future__ import annotations

import threading


class SharedTokens:
    """Generated tokens that are left; None is without limit. Safe from several schedulers."""

    def __init__(self, num_tokens: int | None) -> None:
        self._lock = threading.Lock()
        self._left = num_tokens

    def spend(self, num_tokens: int) -> bool:
        """Takes that many if they are left, else none."""
        with self._lock:
            if self._left is None:
                return True
            if self._left < num_tokens:
                return False
            self._left -= num_tokens
            return True

    def left(self) -> int | None:
        return self._left
