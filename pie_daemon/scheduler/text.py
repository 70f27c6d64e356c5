"""Token bytes to text, one token at a time: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

_utf8 = codecs.getincrementaldecoder("utf-8")


class _Matcher:
    """Knuth-Morris-Pratt: a character costs the same however long the stop string is."""

    __slots__ = ("_fallback", "matched", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.matched = 0
        self._fallback = [0] * len(pattern)
        length = 0
        for index in range(1, len(pattern)):
            length = self._step(length, pattern[index])
            self._fallback[index] = length

    def _step(self, matched: int, char: str) -> int:
        while matched and self.pattern[matched] != char:
            matched = self._fallback[matched - 1]
        return matched + 1 if self.pattern[matched] == char else 0

    def push(self, char: str) -> bool:
        """True when this character completes the pattern; not to be called again after that."""
        self.matched = self._step(self.matched, char)
        return self.matched == len(self.pattern)


class TextStream:
    """The text of one generation.

    Released text is final: it ends on a whole character, and never shows the beginning of what may
    still turn out to be a stop string. Invalid bytes become U+FFFD as in `bytes.decode("utf-8",
    "replace")`. The stop string that ends first wins, the longest of those that end together, so
    that the result does not depend on where the borders of tokens lie.
    """

    __slots__ = ("_decoder", "_held", "_matchers", "matched")

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        self._decoder = _utf8("replace")
        self._matchers = [_Matcher(pattern) for pattern in stop_strings]
        self._held = ""
        self.matched: str | None = None
        """The stop string that was met; what came before it has been released."""

    def push(self, data: bytes) -> str:
        """The text that is certain after one more token."""
        text = self._decoder.decode(data)
        return self._filter(text) if self._matchers else text

    def finish(self) -> str:
        """What was held back, when no stop string was met; half a character becomes U+FFFD."""
        if self.matched is not None:
            return ""
        text = self._held + self._decoder.decode(b"", True)
        self._held = ""
        return text

    def _filter(self, text: str) -> str:
        buffered = self._held + text
        for end, char in enumerate(text, start=len(self._held) + 1):
            met = [matcher.pattern for matcher in self._matchers if matcher.push(char)]
            if met:
                self.matched, self._held = max(met, key=len), ""
                return buffered[: end - len(self.matched)]
        certain = len(buffered) - max(matcher.matched for matcher in self._matchers)
        self._held = buffered[certain:]
        return buffered[:certain]
