"""The token budget of a launch, shared by everything that spends from it, children as well."""

from __future__ import annotations

import threading


class SharedTokens:
    """Generated tokens that are left; None is without limit. Safe from several schedulers."""

    def __init__(self, num_tokens: int | None, parent: SharedTokens | None = None) -> None:
        """What is spent here is taken from `parent` as well."""
        self._lock = threading.Lock()
        self._left = num_tokens
        self._parent = parent
        self._is_limited: bool = num_tokens is not None or (
            parent is not None and parent._is_limited
        )

    def spend(self, num_tokens: int) -> bool:
        """Takes that many if they are left, else none."""
        if not self._is_limited:
            return True
        with self._lock:  # a parent's lock is only ever taken below its children's
            if self._left is not None and self._left < num_tokens:
                return False
            if self._parent is not None and not self._parent.spend(num_tokens):
                return False
            if self._left is not None:
                self._left -= num_tokens
            return True

    def left(self) -> int | None:
        if not self._is_limited:
            return None
        above = None if self._parent is None else self._parent.left()
        left = self._left
        if left is None or above is None:
            return above if left is None else left
        return min(left, above)
