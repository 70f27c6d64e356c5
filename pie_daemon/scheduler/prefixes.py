"""Names of pages by content: a chain of hashes over everything that their KV depends on.

The KV of a page depends on its tokens, on the adapters that computed them and on all before it, so
its key hashes all: the parent's key, the page's tokens and where which adapter begins. Model,
revision and number format are those of the one scheduler. The chain begins with the user's name, so
that nobody learns from timing what others ask; with `share_prefixes` it begins the same for all.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pie_daemon.scheduler.contexts import Context

_DIGEST_BYTES = 32


class PrefixKeys:
    """Keys of the pages of one model; pages that are not full have none."""

    def __init__(self, page_size: int, *, share: bool) -> None:
        self._page_size = page_size
        self._share = share

    def extend(self, context: Context, num_keys: int) -> None:
        """Appends to the keys of a context's first pages until there are `num_keys`."""
        keys, size = context.keys, self._page_size
        parent = keys[-1] if keys else self._root(context.owner.user_name)
        for start in range(len(keys) * size, num_keys * size, size):
            tokens = array("I", context.journal[start : start + size])
            adapters = context.adapters.content(start, start + size)
            content = parent + tokens.tobytes() + adapters
            parent = blake2b(content, digest_size=_DIGEST_BYTES).digest()
            keys.append(parent)

    def _root(self, user: str) -> bytes:
        if self._share:
            return b""
        return blake2b(user.encode(), digest_size=_DIGEST_BYTES).digest()
