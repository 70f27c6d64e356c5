"""A context without its pages: all that its KV depends on, so that it can be computed again."""

from __future__ import annotations

from array import array

import msgspec

from pie_daemon.scheduler.adapter_runs import AdapterRuns, Run
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.layout import CAUSAL, Layout
from pie_daemon.scheduler.visibility import EVERYTHING, Visibility


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a saved context. Equal journals give equal KV, and the same keys of pages."""

    packed: bytes
    """The tokens: uint32 in the byte order of this machine."""
    visibility: Visibility = EVERYTHING
    num_open: int = 0
    """Tokens at the end that no request has asked to compute."""
    adapters: tuple[Run, ...] = ((0, None),)
    """What computed which tokens."""
    layout: Layout = CAUSAL

    @classmethod
    def of(cls, context: Context) -> Journal:
        return cls(
            array("I", context.journal).tobytes(),
            context.visibility,
            context.num_open,
            context.adapters.runs,
            context.layout,
        )

    @property
    def weight(self) -> int:
        """In tokens: a mask row counts as the tokens that take as many bytes."""
        return (len(self.packed) + self.layout.num_bytes) // array("I").itemsize

    @property
    def num_tokens(self) -> int:
        return len(self.packed) // array("I").itemsize

    @property
    def tokens(self) -> list[int]:
        return array("I", self.packed).tolist()

    def write_into(self, context: Context) -> None:
        """Makes an empty context one whose KV is still to be found or computed."""
        context.journal = self.tokens
        context.visibility = self.visibility
        context.num_open = self.num_open
        context.adapters = AdapterRuns(list(self.adapters))
        context.layout = self.layout
