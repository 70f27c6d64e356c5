"""The host's side of constraints: limits, waiting, atomic acceptance, and whose model it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pie_daemon.errors import PieError
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.grammar.source import Source
from pie_daemon.host.context import Model
from pie_daemon.host.interfaces import constraints, inference
from pie_daemon.host.mailbox import Mailbox
from pie_daemon.host.stop import Stopped
from support.rig import Letters

INFO: Any = SimpleNamespace(name="letters", vocab_size=512, eos_tokens=[0])
A, B = 26, 27
"""Tokens of `Letters` that spell a and b."""


class Host:
    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self.num_constraints = 0


def new_host() -> Any:
    return Host()


@pytest.fixture
def limits() -> SimpleNamespace:
    return SimpleNamespace(constraints=2, constraint_bytes=100, constraint_compile_s=30.0)


@pytest.fixture
def model(limits: SimpleNamespace) -> Iterator[Model]:
    letters, serving = Letters(), SimpleNamespace(info=INFO)
    compiler = GrammarCompiler(letters, INFO, lambda: limits)
    found: Any = Model("letters", letters, serving, compiler)  # type: ignore[arg-type]
    yield found
    compiler.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled before the test is over."""
    over = threading.Event()

    def wait(source: Source) -> Iterator[str]:
        assert over.wait(30)
        return iter(["start: "])

    monkeypatch.setattr(Source, "grammars", wait)
    yield
    over.set()


def code_of(error: pytest.ExceptionInfo[PieError]) -> str:
    return error.value.code


def test_a_mask_crosses_as_run_lengths(model: Model) -> None:
    """Every token that spells b or c, and no other."""
    host = new_host()
    made = constraints.regex(host, model, "[bc]")
    runs = constraints.mask(host, made)
    assert ([1, 2, 24, 2], 512) == (runs[:4], sum(runs))


def test_several_tokens_are_accepted_whole_or_not_at_all(model: Model) -> None:
    """The one that does not fit takes back those before it."""
    host = new_host()
    made = constraints.regex(host, model, "ab+")
    with pytest.raises(PieError) as refused:
        constraints.accept(host, made, [A, B, A])
    assert "invalid-argument" == code_of(refused)
    constraints.accept(host, made, [A, B])
    constraints.rollback(host, made, 2)
    with pytest.raises(PieError, match="0 were accepted"):
        constraints.rollback(host, made, 1)


def test_a_fork_goes_its_own_way(model: Model) -> None:
    """Neither sees what the other accepts."""
    host = new_host()
    made = constraints.regex(host, model, "ab")
    fork = constraints.fork(host, made)
    constraints.accept(host, fork, [A, B])
    assert (False, True) == (constraints.complete(host, made), constraints.complete(host, fork))


def test_a_program_holds_no_more_than_the_operator_allows(model: Model) -> None:
    """Forks count; what is dropped makes room."""
    host = new_host()
    made = constraints.regex(host, model, "ab")
    constraints.fork(host, made)
    with pytest.raises(PieError, match=r"limits\.constraints") as refused:
        constraints.fork(host, made)
    assert "exhausted" == code_of(refused)
    with pytest.raises(PieError, match=r"limits\.constraints"):
        constraints.regex(host, model, "ab")
    made.close()
    constraints.fork(host, made)


@pytest.mark.usefixtures("held")
def test_a_compilation_that_takes_too_long_is_given_up(
    model: Model, limits: SimpleNamespace
) -> None:
    """The limit is named; nothing is left open."""
    limits.constraint_compile_s = 0.01
    host = new_host()
    with pytest.raises(PieError, match=r"limits\.constraint_compile_s") as refused:
        constraints.lark(host, model, 'start: "a"')
    assert ("timeout", 0) == (code_of(refused), host.num_constraints)


@pytest.mark.usefixtures("held")
def test_a_program_that_waits_for_a_compilation_can_be_stopped(model: Model) -> None:
    """The wait is in its mailbox."""
    host = new_host()
    stopper = threading.Timer(0.05, host.mailbox.stop, ("cancelled", "stopped"))
    stopper.start()
    started_s = time.monotonic()
    with pytest.raises(Stopped):
        constraints.choose(host, model, ["a", "b"])
    stopper.join()
    assert time.monotonic() - started_s < 20


def test_a_constraint_is_for_contexts_of_its_model(model: Model) -> None:
    """Token ids of one model mean nothing to another."""
    host = new_host()
    made = constraints.regex(host, model, "ab")
    context: Any = SimpleNamespace(model=SimpleNamespace(name="other"))
    with pytest.raises(PieError, match="letters, the context for other"):
        inference._matcher(context, made)
    own: Any = SimpleNamespace(model=model)
    matcher = inference._matcher(own, made)
    assert matcher is not None
    matcher.accept(A)
    assert not constraints.complete(host, made)
