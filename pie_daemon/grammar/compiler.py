"""Constraints from source to matcher, off the hot path: a cache and a few threads per model.

llguidance lets go of the interpreter while it builds, so threads are enough: measured, the worst
pause of another thread is 8 ms while a schema of 1500 properties takes 400 ms.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from pie_daemon.errors import PieError
from pie_daemon.grammar.guidance import Grammar, GuidanceMatcher
from pie_daemon.grammar.reasons import place_and_reason
from pie_daemon.grammar.source import Source
from pie_daemon.grammar.vocabulary import Spelling, Vocabulary

if TYPE_CHECKING:
    from llguidance import LLParserLimits

    from pie_backend.batch import BackendInfo

MAX_CACHED = 64
"""Compiled grammars that a model keeps, the least recently used go first."""
NUM_THREADS = 2
_NICENESS = 10
# A state takes 1-2 kB. All forks of a grammar share them, and counting (`.{0,1000}`) takes two of
# them for every character: enough for a text of 25,000.
MAX_LEXER_STATES = 50_000
# A fifth of the library's default, with which `(a{1000}){1000}` takes seconds; schemas of a
# thousand patterns still fit.
INITIAL_LEXER_FUEL = 200_000


class GrammarLimits(Protocol):
    """Limits of the operator."""

    @property
    def constraints(self) -> int: ...

    @property
    def constraint_bytes(self) -> int: ...

    @property
    def constraint_compile_s(self) -> float: ...


@dataclass(slots=True)
class _Entry:
    """One source on its way, or compiled."""

    future: Future[GuidanceMatcher]
    num_waiting: int = 0

    @property
    def is_spent(self) -> bool:
        future = self.future
        done = future.done() and not future.cancelled() and future.exception() is None
        return done and future.result().grammar.is_spent


class Ticket:
    """One wait for a compilation. `close` it, whatever came of it."""

    def __init__(self, compiler: GrammarCompiler, source: Source, entry: _Entry) -> None:
        self._compiler = compiler
        self._source = source
        self._entry = entry

    @property
    def done(self) -> bool:
        return self._entry.future.done()

    def matcher(self) -> GuidanceMatcher:
        """At the beginning of the grammar, the caller's own. Only once it is done.

        Raises: PieError: why it does not compile.
        """
        error = self._entry.future.exception()
        if isinstance(error, PieError):
            raise PieError(error.code, error.message)
        if error is not None:
            raise PieError("internal", f"the {self._source.kind} broke the compiler: {error}")
        return self._entry.future.result().fork()

    def close(self) -> None:
        self._compiler.leave(self._source, self._entry)


class GrammarCompiler:
    """Of one model. Any thread may call it."""

    def __init__(
        self, spelling: Spelling, info: BackendInfo, limits: Callable[[], GrammarLimits]
    ) -> None:
        self._spelling = spelling
        self._info = info
        self.limits = limits
        self._lock = threading.Lock()
        self._vocabulary_lock = threading.Lock()
        self._entries: OrderedDict[Source, _Entry] = OrderedDict()

    def compile(self, source: Source, notify: Callable[[], None]) -> Ticket:
        """Never waits; `notify` is called once it is done, from another thread.

        Raises: PieError: `invalid-argument` for a source that is too long.
        """
        num_bytes, allowed = len(source.text.encode()), self.limits().constraint_bytes
        if num_bytes > allowed:
            raise PieError(
                "invalid-argument",
                f"the {source.kind} has {num_bytes} bytes; "
                f"limits.constraint_bytes allows {allowed}",
            )
        with self._lock:
            entry = self._find(source) or self._begin(source)
            entry.num_waiting += 1
        entry.future.add_done_callback(lambda _: notify())
        return Ticket(self, source, entry)

    def leave(self, source: Source, entry: _Entry) -> None:
        """What nobody waits for any more is not begun, and failures are not kept."""
        with self._lock:
            entry.num_waiting -= 1
            future = entry.future
            if entry.num_waiting == 0 and not future.cancel() and not future.done():
                return
            unusable = future.cancelled() or (future.done() and future.exception() is not None)
            if unusable and self._entries.get(source) is entry:
                del self._entries[source]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _find(self, source: Source) -> _Entry | None:
        entry = self._entries.get(source)
        if entry is None or entry.is_spent:
            return None
        self._entries.move_to_end(source)
        return entry

    def _begin(self, source: Source) -> _Entry:
        entry = self._entries[source] = _Entry(self._pool.submit(self._build, source))
        settled = [key for key, one in self._entries.items() if one.future.done()]
        for oldest in settled[: max(0, len(self._entries) - MAX_CACHED)]:
            del self._entries[oldest]
        return entry

    def _build(self, source: Source) -> GuidanceMatcher:
        from llguidance import LLMatcher

        vocabulary = self._vocabulary()
        for grammar in source.grammars():
            inner = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=_limits())
            if not inner.is_error():
                break
        else:
            reason = place_and_reason(source.kind, inner.get_error())
            raise PieError("invalid-argument", f"the {source.kind} cannot be used: {reason}")
        matcher = GuidanceMatcher(inner, Grammar(vocabulary))
        # The first mask builds a good part of the lexer, which all forks share.
        matcher.mask()
        return matcher

    def _vocabulary(self) -> Vocabulary:
        with self._vocabulary_lock:
            return self._built_vocabulary

    @cached_property
    def _built_vocabulary(self) -> Vocabulary:
        return Vocabulary(self._spelling, self._info)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        name = f"grammar-{self._info.name}"
        return ThreadPoolExecutor(NUM_THREADS, name, initializer=_be_nice)


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=INITIAL_LEXER_FUEL,
        max_lexer_states=MAX_LEXER_STATES,
        verbose_errors=False,
    )


def _be_nice() -> None:
    """Batches go first. Linux counts niceness by thread."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
