"""Ended instances are kept for a while, and not too many of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from pie_daemon.runtime.finished import Finished


@dataclass(eq=False)
class Ended:
    """As much of an instance as its keeper looks at."""

    depth: int = 0
    finished_for_s: float = 0.0
    done: bool = True
    launch: Any = field(init=False)

    def __post_init__(self) -> None:
        self.launch = SimpleNamespace(depth=self.depth)


def kept(*instances: Ended) -> Finished:
    finished = Finished()
    for instance in instances:
        finished.add(instance)  # type: ignore[arg-type]
    return finished


def test_those_that_ended_too_long_ago_are_forgotten() -> None:
    """Once, and the others stay."""
    old, young = Ended(finished_for_s=61), Ended(finished_for_s=59)
    finished = kept(old, young)
    assert [old] == list(finished.forget(60, 10))
    assert [] == list(finished.forget(60, 10))


def test_of_more_than_may_be_kept_the_first_go() -> None:
    """However short ago they ended."""
    instances = [Ended() for _ in range(5)]
    assert instances[:3] == list(kept(*instances).forget(60, 2))


def test_children_do_not_push_out_those_that_a_client_launched() -> None:
    """Each kind has its own limit."""
    root, children = Ended(), [Ended(depth=1) for _ in range(300)]
    assert children[:44] == list(kept(root, *children).forget(60, 1))


def test_one_that_is_still_ending_is_not_forgotten() -> None:
    """Its outcome is not there yet."""
    ending = Ended(done=False)
    assert [] == list(kept(ending).forget(0, 0))


def test_one_that_never_began_is_not_kept() -> None:
    """The system had no thread for it."""
    instance = Ended()
    finished = kept(instance)
    finished.discard(instance)  # type: ignore[arg-type]
    assert [] == list(finished.forget(0, 0))
