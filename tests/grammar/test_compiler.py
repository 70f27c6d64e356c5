"""Compilation: off the caller's thread, once per source, bounded, and not for nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pie_daemon.errors import PieError
from pie_daemon.grammar import compiler as module
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.grammar.source import Source
from support.guided import compiled
from support.rig import Letters
from support.waiting import until

INFO: Any = SimpleNamespace(name="letters", vocab_size=512, eos_tokens=[0])
LIMITS = SimpleNamespace(constraints=8, constraint_bytes=1 << 16, constraint_compile_s=10.0)


class Held:
    """Counts what is built, and holds the builders until they may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built: list[str] = []
        self.go_on = threading.Event()
        grammars = Source.grammars

        def held(source: Source) -> Iterator[str]:
            self.built.append(source.text)
            assert self.go_on.wait(30)
            return grammars(source)

        monkeypatch.setattr(Source, "grammars", held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.go_on.set()


@pytest.fixture
def compiler() -> Iterator[GrammarCompiler]:
    compiler = GrammarCompiler(Letters(), INFO, lambda: LIMITS)
    yield compiler
    compiler.close()


def nothing() -> None:
    """Somebody is told."""


def test_equal_sources_are_compiled_once(compiler: GrammarCompiler, held: Held) -> None:
    """Whoever asks while it is on its way waits for the same one; later ones find it."""
    tickets = [compiler.compile(Source("regex", "ab"), nothing) for _ in range(5)]
    held.go_on.set()
    until(lambda: all(ticket.done for ticket in tickets))
    matchers = [ticket.matcher() for ticket in tickets]
    for ticket in tickets:
        ticket.close()
    compiled(compiler, Source("regex", "ab"))

    assert ["ab"] == held.built
    assert 5 == len({id(one) for one in matchers})


def test_what_nobody_waits_for_is_not_begun(compiler: GrammarCompiler, held: Held) -> None:
    """A program that was stopped, or lost its patience, leaves no work behind it."""
    busy = [compiler.compile(Source("regex", text), nothing) for text in ("a", "b")]
    left = compiler.compile(Source("regex", "c"), nothing)
    left.close()
    held.go_on.set()
    until(lambda: all(ticket.done for ticket in busy))
    compiled(compiler, Source("regex", "d"))

    assert ["a", "b", "d"] == sorted(held.built)


def test_failures_are_not_kept(compiler: GrammarCompiler, held: Held) -> None:
    """The cache holds what can be used again."""
    held.go_on.set()
    for _ in range(2):
        with pytest.raises(PieError, match="unclosed group"):
            compiled(compiler, Source("regex", "a("))

    assert ["a(", "a("] == held.built


def test_the_least_recently_used_goes_first(
    compiler: GrammarCompiler, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is bounded; using a grammar keeps it."""
    monkeypatch.setattr(module, "MAX_CACHED", 2)
    held.go_on.set()
    for text in ("a", "b", "a", "c", "a", "b"):
        compiled(compiler, Source("regex", text))

    assert ["a", "b", "c", "b"] == held.built


def test_tokens_that_spell_the_same_are_all_allowed(compiler: GrammarCompiler) -> None:
    """A vocabulary may have a text twice; and it may lack what a grammar needs."""
    mask = compiled(compiler, Source("regex", "[bc]")).mask()
    allowed = {token for token in range(512) if mask[token // 8] >> token % 8 & 1}
    assert {token for token in range(1, 512) if token % 26 in (1, 2)} == allowed

    with pytest.raises(PieError, match="allows no token here"):
        compiled(compiler, Source("regex", "[0-9]"))
