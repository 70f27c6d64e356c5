"""WIT interface `constraints`: grammars that say which tokens may come next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from pie_daemon.errors import PieError
from pie_daemon.grammar.matcher import Matcher
from pie_daemon.grammar.runs import runs_of
from pie_daemon.grammar.source import Source, choice
from pie_daemon.host.context import HostContext, Model


class Constraint:
    """A place in a grammar. Generations and passes take their own fork of `matcher`."""

    def __init__(self, host: HostContext, model: Model, matcher: Matcher) -> None:
        allowed = model.grammars.limits().constraints
        if host.num_constraints >= allowed:
            raise PieError(
                "exhausted",
                f"{allowed} constraints are open, which limits.constraints allows; drop some",
            )
        self.model = model
        self.matcher = matcher
        self._host = host
        host.num_constraints += 1

    def close(self) -> None:
        self._host.num_constraints -= 1


def json_value(host: HostContext, model: Model) -> Constraint:
    return _compiled(host, model, Source("json"))


def json_schema(host: HostContext, model: Model, schema: str) -> Constraint:
    return _compiled(host, model, Source("json-schema", schema))


def regex(host: HostContext, model: Model, pattern: str) -> Constraint:
    return _compiled(host, model, Source("regex", pattern))


def lark(host: HostContext, model: Model, grammar: str) -> Constraint:
    return _compiled(host, model, Source("lark", grammar))


def choose(host: HostContext, model: Model, options: Sequence[str]) -> Constraint:
    return _compiled(host, model, choice(options))


def _compiled(host: HostContext, model: Model, source: Source) -> Constraint:
    """Waits in the mailbox, so that the instance can be stopped meanwhile."""
    allowed_s = model.grammars.limits().constraint_compile_s
    ticket = model.grammars.compile(source, host.mailbox.wake)
    try:
        if not host.mailbox.wait(lambda: ticket.done, allowed_s):
            raise PieError(
                "timeout",
                f"the {source.kind} was not compiled within {allowed_s:g} s, which "
                "limits.constraint_compile_s allows; simplify it",
            )
        return Constraint(host, model, ticket.matcher())
    finally:
        ticket.close()


def fork(host: HostContext, constraint: Constraint) -> Constraint:
    return Constraint(host, constraint.model, constraint.matcher.fork())


def accept(host: HostContext, constraint: Constraint, tokens: Sequence[int]) -> None:
    """All of them or none."""
    matcher = constraint.matcher.fork()
    for token in tokens:
        matcher.accept(token)
    constraint.matcher = matcher


def rollback(host: HostContext, constraint: Constraint, num_tokens: int) -> None:
    constraint.matcher.rollback(num_tokens)


def mask(host: HostContext, constraint: Constraint) -> list[int]:
    return _runs(constraint.matcher.mask(), constraint.model.info.vocab_size)


_runs = lru_cache(maxsize=64)(runs_of)
"""Grammars come back to the same mask, within a string for example. Nobody changes the answer."""


def complete(host: HostContext, constraint: Constraint) -> bool:
    try:
        return constraint.matcher.complete
    except PieError:
        # It cannot go on at all; `mask` says why.
        return False


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "[static]constraint.json": json_value,
    "[static]constraint.json-schema": json_schema,
    "[static]constraint.regex": regex,
    "[static]constraint.lark": lark,
    "[static]constraint.choice": choose,
    "[method]constraint.fork": fork,
    "[method]constraint.accept": accept,
    "[method]constraint.rollback": rollback,
    "[method]constraint.mask": mask,
    "[method]constraint.complete": complete,
}
