"""Where the tokens of a context stand, and what they see, where a program decided it.

KV depends on both, so the record lasts as long as the tokens do: computing them again, in this
context or in a fork of it, gives the same KV. Tokens between and after the blocks are causal, and
their positions go on from the token before them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from pie_daemon.errors import PieError

MAX_MASK_BYTES = 16 << 20
"""Of all mask rows of one context."""


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens [start, start + len(positions)) that one pass brought."""

    start: int
    positions: tuple[int, ...]
    attention: tuple[bytes, ...] | None = None
    """One packed bit row per token, see `Row.attention`; None: causal."""
    looks_ahead: bool = False
    """A token sees a later one, so one row has to compute them all."""

    @property
    def end(self) -> int:
        return self.start + len(self.positions)

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.attention or ()))

    def truncated(self, length: int) -> Block:
        num_kept = length - self.start
        attention = self.attention and self.attention[:num_kept]
        if attention and self.looks_ahead:
            attention = tuple(
                clipped(row, self.start + index, length) for index, row in enumerate(attention)
            )
        return Block(self.start, self.positions[:num_kept], attention, self.looks_ahead)


def clipped(row: bytes, index: int, length: int) -> bytes:
    """What token `index` sees of the first `length` tokens; itself when nothing is left."""
    bits = int.from_bytes(row, "little") & ((1 << length) - 1)
    return (bits or 1 << index).to_bytes(-(-length // 8), "little")


@dataclass(frozen=True, slots=True)
class Layout:
    """Immutable, so that a fork shares it."""

    blocks: tuple[Block, ...] = ()
    """In order; what is between them is causal."""
    num_bytes: int = 0
    """Of all their mask rows."""

    def num_plain(self, length: int) -> int:
        """So many tokens at the beginning depend on nothing but tokens, and have pages that can be
        known by content."""
        return min(length, self.blocks[0].start) if self.blocks else length

    def position(self, index: int) -> int:
        block = self._block_before(index)
        if block is None:
            return index
        if index < block.end:
            return block.positions[index - block.start]
        return block.positions[-1] + 1 + index - block.end

    def positions(self, start: int, end: int) -> list[int] | None:
        """Of a row; None: their places in the context."""
        if self.num_plain(end) == end:
            return None
        found = [self.position(index) for index in range(start, end)]
        return None if found == list(range(start, end)) else found

    def attention(self, start: int, end: int) -> list[bytes] | None:
        """Of a row that `end_of_row` allows."""
        block = self._block_at(start)
        if block is None or block.attention is None:
            return None
        num_bytes = -(-end // 8)
        return [
            self._mask(index)[:num_bytes].ljust(num_bytes, b"\0") for index in range(start, end)
        ]

    def end_of_row(self, start: int, end: int) -> int:
        """One row can compute tokens [start, this); at most `end`."""
        first = self._block_at(start)
        if first is not None and first.looks_ahead:
            return first.end
        masked = first is not None and first.attention is not None
        index = start if first is None else first.end
        for block in self.blocks[self._num_before(index - 1) :]:
            if block.start >= end:
                break
            gap = masked and block.start > index
            if gap or block.looks_ahead or masked != (block.attention is not None):
                return min(end, index if gap else block.start)
            index = block.end
        return min(end, index) if masked else end

    def is_whole(self, start: int) -> bool:
        """The row from there has to be computed at once."""
        block = self._block_at(start)
        return block is not None and block.looks_ahead

    def start_of(self, index: int) -> int:
        """Where to begin in order to compute that token."""
        block = self._block_at(index)
        return block.start if block is not None and block.looks_ahead else index

    def num_unchanged(self, length: int) -> int:
        """Tokens whose KV stays right when all from `length` on go: none that saw one of them."""
        block = self._block_at(length - 1)
        cut = block is not None and block.looks_ahead and block.end > length
        return block.start if block is not None and cut else length

    def added(self, block: Block) -> Layout:
        """With what comes next in the context.

        Raises:
            PieError: exhausted, when the masks become too large.
        """
        begin = self.position(block.start)
        continues = block.positions == tuple(range(begin, begin + len(block.positions)))
        if not block.positions or (continues and block.attention is None):
            return self
        num_bytes = self.num_bytes + block.num_bytes
        if num_bytes > MAX_MASK_BYTES:
            raise PieError(
                "exhausted",
                f"the attention masks of one context may have {MAX_MASK_BYTES} bytes as bits, "
                "one for each token that a token may see: mask fewer tokens, or truncate it",
            )
        return Layout((*self.blocks, block), num_bytes)

    def truncated(self, length: int) -> Layout:
        if not self.blocks or self.blocks[-1].end <= length:
            return self
        kept = self.blocks[: self._num_before(length - 1)]
        if kept and kept[-1].end > length:
            kept = (*kept[:-1], kept[-1].truncated(length))
        return Layout(kept, sum(block.num_bytes for block in kept))

    def _mask(self, index: int) -> bytes:
        block = self._block_at(index)
        assert block is not None
        assert block.attention is not None
        return block.attention[index - block.start]

    def _num_before(self, index: int) -> int:
        """Blocks that start at `index` or before."""
        return bisect_right(self.blocks, index, key=lambda block: block.start)

    def _block_before(self, index: int) -> Block | None:
        number = self._num_before(index)
        return self.blocks[number - 1] if number else None

    def _block_at(self, index: int) -> Block | None:
        block = self._block_before(index)
        return block if block is not None and index < block.end else None


CAUSAL = Layout()
