"""Names of pages by content: a chain of hashes over everything that their KV depends on.

The KV of a page depends on its tokens, on the adapters that computed them, on what was hidden from
them, and on all before it, so its key hashes all: the parent's key, the page's tokens, where which
adapter begins, and what they did not see. Model, revision and number format are those of the one
scheduler. The chain begins with the user's name, so that nobody learns from timing what others ask;
with `share_prefixes` it begins the same for all.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b

_DIGEST_BYTES = 32


class PrefixKeys:
    """Keys of the pages of one model; pages that are not full have none."""

    def __init__(self, page_size: int, *, share: bool) -> None:
        self._page_size = page_size
        self._share = share

    def extend(
        self,
        keys: list[bytes],
        journal: Sequence[int],
        num_keys: int,
        user: str,
        circumstances: Callable[[int, int], bytes],
    ) -> None:
        """Appends to the keys of a journal's first pages until there are `num_keys`.

        `circumstances` tells what else than tokens the KV of [start, end) depends on.
        """
        size = self._page_size
        parent = keys[-1] if keys else self._root(user)
        for start in range(len(keys) * size, num_keys * size, size):
            end = start + size
            content = array("I", journal[start:end]).tobytes() + circumstances(start, end)
            parent = blake2b(parent + content, digest_size=_DIGEST_BYTES).digest()
            keys.append(parent)

    def _root(self, user: str) -> bytes:
        if self._share:
            return b""
        return blake2b(user.encode(), digest_size=_DIGEST_BYTES).digest()
