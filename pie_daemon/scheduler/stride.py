"""The rows of a plain decode loop within one page: each is the one before it, one token further."""

from __future__ import annotations

from typing import ClassVar

from pie_backend.batch import Row
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.draws import Draws


class Stride:
    """Stands for a `Run` that need not be worked out: the token drawn last.

    The page that it comes into has room for it, and is the context's alone; meanwhile there is
    nothing to publish. A request has a stride only while it runs, and loses it with its pages.
    """

    __slots__ = ("_context", "_draws", "_pages", "adapter", "num_left")

    hidden: ClassVar[list[tuple[int, int]]] = []
    positions: ClassVar[None] = None
    attention: ClassVar[None] = None

    def __init__(self, context: Context, row: Row, draws: Draws, num_left: int) -> None:
        """`row` is the one that comes before; after it the page has room for `num_left` tokens."""
        self._context, self._draws, self.num_left = context, draws, num_left
        self._pages, self.adapter = row.pages, row.adapter

    @property
    def start(self) -> int:
        return self._context.num_computed

    @property
    def end(self) -> int:
        return self.start + 1

    @property
    def tokens(self) -> list[int]:
        return self._context.journal[-1:]

    def row(self) -> Row:
        """From then on it is computed."""
        context, self.num_left = self._context, self.num_left - 1
        start = context.num_computed
        context.num_computed = context.num_once_computed = start + 1
        # All rows of a stride have one list of pages: nobody changes it.
        tokens, samples = context.journal[-1:], self._draws.next()
        return Row(tokens, start, self._pages, samples, adapter=self.adapter)
