"""One context: a journal of tokens, what their KV depends on, and how much of it is where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from pie_daemon.scheduler.adapter_runs import AdapterRuns
from pie_daemon.scheduler.layout import CAUSAL, Layout
from pie_daemon.scheduler.owners import Owner
from pie_daemon.scheduler.suspension import Suspended
from pie_daemon.scheduler.visibility import EVERYTHING, Visibility

if TYPE_CHECKING:
    from pie_daemon.scheduler.request import Request


class Run(msgspec.Struct, frozen=True, gc=False):
    """Tokens of a journal that one row can compute: all that a row has but once is the same."""

    start: int
    tokens: list[int]
    adapter: str | None
    hidden: list[tuple[int, int]]
    """What none of its tokens sees."""
    positions: list[int] | None
    """None: their places in the journal."""
    attention: list[bytes] | None
    """What each of them sees; None: what comes before it and is not hidden."""

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def positions_with(self, num_drafts: int) -> list[int] | None:
        """And of what is guessed to follow."""
        if self.positions is None:
            return None
        following = self.positions[-1] + 1
        return [*self.positions, *range(following, following + num_drafts)]


@dataclass(slots=True, eq=False)
class Context:
    id: int
    owner: Owner
    journal: list[int] = field(default_factory=list)
    num_computed: int = 0
    """KV of tokens [0, num_computed) is in `pages`, or will be when the batch in flight is done."""
    num_drafted: int = 0
    """Guessed tokens beyond the journal that the batch in flight computes into `pages` as well."""
    pages: list[int] = field(default_factory=list)
    num_published: int = 0
    """The first so many pages are published, or have a published twin."""
    keys: list[bytes] = field(default_factory=list)
    """Of the first whole pages of the journal, as far as somebody asked for them."""
    adapters: AdapterRuns = field(default_factory=AdapterRuns)
    """What computed each token, or is to compute it."""
    visibility: Visibility = EVERYTHING
    """What each token of the journal saw, or will see."""
    num_open: int = 0
    """So many tokens at the end were appended since the last request: a hide applies to them."""
    layout: Layout = CAUSAL
    """Positions and masks that passes gave to tokens of the journal."""
    request: Request | None = None
    """The one live request; while there is one, every mutating call answers `busy`."""
    priority: int = 0
    """Within its family: the highest is served first and suspended last."""
    suspended: Suspended | None = None
    """Set while its pages are given up for others; then `pages` is empty."""
    num_once_computed: int = 0
    """KV of tokens [0, num_once_computed) has been computed, and is lost beyond `num_computed`
    only because the context was suspended."""
    last_used: int = 0
    """Idle contexts are suspended in this order."""
    last_batch: int = 0
    """The number of the batch that was next when it was last used."""

    @property
    def num_pending(self) -> int:
        """Tokens that no batch has computed yet."""
        return len(self.journal) - self.num_computed

    @property
    def is_computed(self) -> bool:
        """The whole journal, though it may have to be computed again; that changes nothing."""
        return self.num_once_computed == len(self.journal)

    @property
    def first_open(self) -> int:
        """From here on it is open how tokens are computed: those that no request has asked for,
        and the last one, which is computed again for a draw."""
        return max(0, len(self.journal) - max(1, self.num_open))

    def circumstances(self, start: int, end: int) -> bytes:
        """What else than tokens the KV of tokens [start, end) depends on; usually nothing."""
        adapters, seen = self.adapters.content(start, end), self.visibility.described(start, end)
        if not adapters and not seen:
            return b""
        return len(adapters).to_bytes(4, "little") + adapters + seen

    @property
    def is_uniform(self) -> bool:
        """All its tokens see all before them at their own places, by one adapter."""
        return not self.layout.blocks and not self.visibility.starts and self.adapters.is_one

    @property
    def num_plain(self) -> int:
        """Tokens at the beginning whose KV depends on tokens alone."""
        return self.layout.num_plain(len(self.journal))

    @property
    def num_visible(self) -> int:
        """The length that the program sees: without what a generation has not handed out yet."""
        hidden = 0 if self.request is None else self.request.num_hidden
        return len(self.journal) - hidden

    def num_in_row(self, max_tokens: int, target: int) -> int:
        """Of the tokens before `target`, so many can the next row compute, at most `max_tokens`;
        0: it has to compute more than that at once."""
        start = self.num_computed
        end = self.layout.end_of_row(start, target)
        if self.layout.is_whole(start):
            return end - start if end - start <= max_tokens else 0
        end = min(end, start + self.adapters.limit(start, max_tokens))
        return self.visibility.end_of_run(start, end) - start

    def next_run(self, max_tokens: int, target: int) -> Run:
        """What the next row computes: of the journal, first time or again."""
        start = self.num_computed
        if self.is_uniform:
            tokens = self.journal[start : min(target, start + max_tokens)]
            return Run(start, tokens, self.adapters.at(start), [], None, None)
        end = start + self.num_in_row(max_tokens, target)
        attention = self.layout.attention(start, end)
        return Run(
            start,
            self.journal[start:end],
            self.adapters.at(start),
            self.visibility.row_hidden(start, end) if attention is None else [],
            self.layout.positions(start, end),
            attention,
        )
