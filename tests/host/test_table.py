"""The instance table owns objects by names and holds."""

from __future__ import annotations

import random

import pytest

from pie_daemon.errors import PieError
from pie_daemon.host.table import Table


class Thing:
    def __init__(self, log: list[Thing]) -> None:
        self._log = log

    def close(self) -> None:
        self._log.append(self)


def test_the_last_name_closes() -> None:
    """An object with two names is closed once, when the second is dropped."""
    closed: list[Thing] = []
    table, thing = Table(), Thing(closed)
    first, second = table.add(thing), table.add(thing)
    assert first != second
    table.drop(first)
    assert closed == []
    assert table.get(second) is thing
    table.drop(second)
    assert closed == [thing]
    assert table.num_objects == 0


def test_a_hold_outlives_the_names() -> None:
    """A generation keeps its context although the program dropped the handle."""
    closed: list[Thing] = []
    table, thing = Table(), Thing(closed)
    name = table.add(thing)
    table.hold(thing)
    table.drop(name)
    assert closed == []
    table.release(thing)
    assert closed == [thing]


def test_close_frees_everything_newest_first() -> None:
    """The end of an instance closes each object once, users before what they use."""
    closed: list[Thing] = []
    table = Table()
    things = [Thing(closed) for _ in range(5)]
    for thing in things:
        table.add(thing)
        table.hold(thing)
    table.take(table.add(things[0]))
    table.close()
    assert closed == things[::-1]
    assert len(table) == table.num_objects == 0
    table.close()
    assert len(closed) == 5


def test_an_object_that_fails_to_close_does_not_keep_the_others() -> None:
    """The error is reported, and the rest is freed."""

    class Broken:
        def close(self) -> None:
            raise OSError("no")

    closed: list[Thing] = []
    errors: list[BaseException] = []
    table, thing = Table(on_error=errors.append), Thing(closed)
    table.add(thing)
    table.add(Broken())
    table.close()
    assert closed == [thing]
    assert [type(error) for error in errors] == [OSError]


def test_a_taken_object_lives_until_the_call_ends() -> None:
    """What the program gave away is closed by `settle` unless the host holds it."""
    closed: list[Thing] = []
    table = Table()
    given, kept = Thing(closed), Thing(closed)
    assert table.take(table.add(given)) is given
    assert table.take(table.add(kept)) is kept
    table.hold(kept)
    assert closed == []
    table.settle()
    assert closed == [given]
    table.close()
    assert closed == [given, kept]


def test_the_table_is_bounded() -> None:
    """One name too many is `exhausted`, and dropping one makes room."""
    table = Table(max_handles=2)
    first = table.add(object())
    table.add(object())
    with pytest.raises(PieError, match="more than 2 handles"):
        table.add(object())
    table.drop(first)
    table.add(object())


def test_any_order_of_adds_and_drops_balances() -> None:
    """After random traffic every object was closed exactly once."""
    generator = random.Random(7)
    closed: list[Thing] = []
    table, names, made = Table(), [], 0
    for _ in range(2000):
        if names and generator.random() < 0.5:
            table.drop(names.pop(generator.randrange(len(names))))
        else:
            names.append(table.add(Thing(closed)))
            made += 1
    table.close()
    assert len(closed) == len(set(map(id, closed))) == made
