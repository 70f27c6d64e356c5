"""Matchers of llguidance behind our own protocol: errors as PieErrors, and end tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pie_daemon.errors import PieError
from pie_daemon.grammar.reasons import first_line

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from pie_daemon.grammar.vocabulary import Vocabulary

SLOW_MASK_S = 0.005
"""Masks take microseconds, but for the first ones in a large grammar and those of odd ones."""


class Grammar:
    """What all matchers of one compiled grammar share, beside the lexer within llguidance."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.is_spent = False
        """The shared lexer has reached a limit: what is forked from now on would fail as well."""


class GuidanceMatcher:
    """Implements `Matcher`."""

    __slots__ = ("_inner", "_mask", "_num_ends", "_num_tokens", "_vocabulary", "grammar", "is_slow")

    def __init__(self, inner: LLMatcher, grammar: Grammar) -> None:
        self.grammar = grammar
        self._inner = inner
        self._vocabulary = grammar.vocabulary
        self._num_tokens = 0
        """Accepted, without end tokens."""
        self._num_ends = 0
        """End tokens accepted: after the first one nothing but more of them may come."""
        self._mask: bytes | None = None
        self.is_slow = False

    def mask(self) -> bytes:
        if self._mask is None:
            self._mask = self._vocabulary.end_mask if self.is_over else self._compute()
        return self._mask

    def accept(self, token: int) -> None:
        if not self._may_accept(token):
            raise PieError("invalid-argument", f"the constraint does not allow token {token} here")
        self._mask = None
        if token in self._vocabulary.ends:
            self._num_ends += 1
            return
        if not self._inner.consume_token(token):
            raise self._failure()
        self._num_tokens += 1

    def rollback(self, num_tokens: int) -> None:
        if not 0 <= num_tokens <= self._num_tokens + self._num_ends:
            raise PieError(
                "invalid-argument",
                f"cannot take back {num_tokens} tokens: "
                f"{self._num_tokens + self._num_ends} were accepted",
            )
        self._mask = None
        num_text = max(0, num_tokens - self._num_ends)
        self._num_ends -= num_tokens - num_text
        self._num_tokens -= num_text
        if num_text and not self._inner.rollback(num_text):
            raise self._failure()

    def fork(self) -> GuidanceMatcher:
        fork = GuidanceMatcher(self._inner.deep_copy(), self.grammar)
        fork._num_tokens, fork._num_ends = self._num_tokens, self._num_ends
        fork._mask, fork.is_slow = self._mask, self.is_slow
        return fork

    @property
    def complete(self) -> bool:
        if self.is_over or not self.allows_end:
            return self.is_over
        return self.mask() == self._vocabulary.end_mask

    @property
    def is_over(self) -> bool:
        if self._num_ends:
            return True
        if self._mask is not None and self._mask == self._vocabulary.end_mask:
            return True
        # llguidance stops after errors as well.
        return self._inner.is_stopped() and self._inner.is_accepting()

    @property
    def allows_end(self) -> bool:
        return self._num_ends > 0 or self._inner.is_accepting()

    def _may_accept(self, token: int) -> bool:
        if token in self._vocabulary.ends:
            return self.allows_end
        if self.is_over or not 0 <= token < self._vocabulary.size:
            return False
        if self._mask is not None and self._mask[token // 8] >> token % 8 & 1:
            return True
        allowed = self._inner.validate_tokens([token]) == 1
        self._raise_failure()
        return allowed

    def _compute(self) -> bytes:
        started_s = time.monotonic()
        mask = self._inner.compute_bitmask()[: self._vocabulary.num_mask_bytes]
        self.is_slow = time.monotonic() - started_s > SLOW_MASK_S
        if self._inner.is_accepting() and not self._inner.is_error():
            return mask
        # Some ends show only when what may follow is looked for.
        if self.is_over:
            return self._vocabulary.end_mask
        self._raise_failure()
        if not any(mask):
            raise PieError("invalid-argument", "the constraint allows no token here")
        return mask

    def _raise_failure(self) -> None:
        if self._inner.is_error():
            raise self._failure()

    def _failure(self) -> PieError:
        reason = first_line(self._inner.get_error())
        if reason.startswith("NoExtension"):
            return PieError("invalid-argument", "the constraint allows no token here")
        self.grammar.is_spent = True
        return PieError(
            "exhausted", f"the constraint has grown too complex to go on: {reason}; simplify it"
        )
