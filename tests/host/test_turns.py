"""Programs that are woken together go one after the other; nobody waits for those that compute."""

from __future__ import annotations

import threading

from pie_daemon.host.turns import PATIENCE_S, Turns


class Line:
    """Turns by a clock that stands still, without a watch; and who was called."""

    def __init__(self) -> None:
        self.now_s = 1.0
        self.num_watched = 0
        self.called: list[str] = []
        self.turns = Turns(lambda: self.now_s, self._watch)
        self._gos = {name: lambda name=name: self.called.append(name) for name in "abcdefghij"}

    def _watch(self, turns: Turns) -> None:
        self.num_watched += 1

    def ask(self, names: str) -> None:
        for name in names:
            self.turns.ask(self._gos[name])

    def end(self, name: str) -> None:
        self.turns.end(self._gos[name])

    def leave(self, name: str) -> None:
        self.turns.leave(self._gos[name])


def test_one_that_is_alone_goes_at_once() -> None:
    """A thread that is woken while nobody has a turn is called at once, and nobody watches."""
    line = Line()
    line.ask("a")
    assert line.called == ["a"]
    line.end("a")
    line.ask("b")
    assert (["a", "b"], 0) == (line.called, line.num_watched)


def test_the_next_goes_when_the_one_before_it_waits_again() -> None:
    """Threads that are woken together are called one by one, in the order of their wakes."""
    line = Line()
    line.ask("abc")
    assert line.called == ["a"]
    line.end("a")
    assert line.called == ["a", "b"]
    line.end("b")
    assert line.called == ["a", "b", "c"]


def test_ending_without_a_turn_gives_nobody_one() -> None:
    """A thread that waits again without having been woken does not move the line."""
    line = Line()
    line.ask("ab")
    line.end("c")
    line.end("b")
    assert line.called == ["a"]


def test_whoever_has_left_gets_no_turn() -> None:
    """A thread that ends while it stands in line is passed over, and its own turn ends with it."""
    line = Line()
    line.ask("abcd")
    line.leave("b")
    line.leave("a")
    assert line.called == ["a", "c"]
    assert line.turns.num_waiting == 1


def test_giving_up_lets_twice_as_many_go_each_time() -> None:
    """Turns that do not end are no longer waited for: two go after the first, four after those."""
    line = Line()
    line.ask("abcdefghij")
    line.turns.give_up()
    assert line.called == list("abc")
    line.turns.give_up()
    assert line.called == list("abcdefg")


def test_they_go_one_by_one_again_when_the_line_was_empty() -> None:
    """That some have computed for long is forgotten with the last of those who waited for them."""
    line = Line()
    line.ask("abc")
    line.turns.give_up()
    line.end("b")
    line.end("c")
    line.ask("de")
    assert line.called == list("abcd")


def test_who_comes_later_does_not_wait_for_a_turn_that_is_too_long() -> None:
    """A thread that is woken while another has had its turn for longer than patience goes."""
    line = Line()
    line.ask("a")
    line.now_s += 2 * PATIENCE_S
    line.ask("b")
    assert (["a", "b"], 0) == (line.called, line.num_watched)


def test_somebody_watches_from_the_first_that_has_to_wait() -> None:
    """The watch is called once for a line, however long it gets."""
    line = Line()
    line.ask("abcd")
    assert line.num_watched == 1


def test_the_watch_gives_up_on_a_turn_that_never_ends() -> None:
    """Everybody in line goes in the end, although no turn does."""
    turns = Turns()
    called = [threading.Event() for _ in range(8)]
    for event in called:
        turns.ask(event.set)
    assert all(event.wait(60) for event in called)


def test_it_tells_how_many_are_awake() -> None:
    """Who has had a turn for too long is no longer counted."""
    line = Line()
    assert line.turns.awake() == (0, 0)
    line.ask("abc")
    assert line.turns.awake() == (2, 1)
    line.end("a")
    assert line.turns.awake() == (1, 1)
    line.now_s += 2 * PATIENCE_S
    assert line.turns.awake() == (1, 0)
