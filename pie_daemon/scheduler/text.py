"""Token bytes to text, one token at a time: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

_utf8 = codecs.getincrementaldecoder("utf-8")


class _Node:
    """A state of the Aho-Corasick automaton: the longest beginning of a stop string seen last."""

    __slots__ = ("depth", "fallback", "match", "next")

    def __init__(self, depth: int, fallback: _Node | None) -> None:
        self.depth = depth
        self.next: dict[str, _Node] = {}
        self.match: str | None = None
        """The longest stop string that ends here."""
        self.fallback = fallback
        """The longest end of this that is another beginning; None only for the root."""

    def step(self, char: str) -> _Node:
        node = self
        while (following := node.next.get(char)) is None:
            if node.fallback is None:
                return node
            node = node.fallback
        return following


@lru_cache(maxsize=256)
def _automaton(stop_strings: tuple[str, ...]) -> _Node:
    """One step per character, however many stop strings there are and however long they be."""
    root = _Node(0, None)
    for stop in stop_strings:
        node = root
        for char in stop:
            node = node.next.setdefault(char, _Node(node.depth + 1, root))
        node.match = stop
    level = deque(root.next.values())
    while level:
        node = level.popleft()
        for char, child in node.next.items():
            assert node.fallback is not None
            child.fallback = node.fallback.step(char)
            child.match = child.match or child.fallback.match
            level.append(child)
    return root


class TextStream:
    """The text of one generation.

    Released text is final: it ends on a whole character, and never shows the beginning of what may
    still turn out to be a stop string. Invalid bytes become U+FFFD as in `bytes.decode("utf-8",
    "replace")`. The stop string that ends first wins, the longest of those that end together, so
    that the result does not depend on where the borders of tokens lie.
    """

    __slots__ = ("_decoder", "_firsts", "_held", "_is_between", "_node", "matched")

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        self._decoder = _utf8("replace")
        self._node = _automaton(tuple(stop_strings))
        self._firsts = self._node.next.keys()
        """Characters that a stop string begins with."""
        self._held = ""
        self._is_between = True  # no half character waits in the decoder
        self.matched: str | None = None
        """The stop string that was met; what came before it has been released."""

    def push(self, data: bytes) -> str:
        """The text that is certain after one more token."""
        is_plain = self._is_between and data.isascii()
        text = data.decode() if is_plain else self._decode(data)
        if not self._held and (not self._firsts or self._firsts.isdisjoint(text)):
            return text
        return self._filter(text)

    def finish(self) -> str:
        """What was held back, when no stop string was met; half a character becomes U+FFFD."""
        if self.matched is not None:
            return ""
        text = self._held + self._decoder.decode(b"", True)
        self._held = ""
        return text

    def _decode(self, data: bytes) -> str:
        text = self._decoder.decode(data)
        self._is_between = not self._decoder.getstate()[0]
        return text

    def _filter(self, text: str) -> str:
        buffered = self._held + text
        node = self._node
        for end, char in enumerate(text, start=len(self._held) + 1):
            node = node.step(char)
            if node.match is not None:
                self.matched, self._held = node.match, ""
                return buffered[: end - len(node.match)]
        self._node = node
        num_certain = len(buffered) - node.depth
        self._held = buffered[num_certain:]
        return buffered[:num_certain]
