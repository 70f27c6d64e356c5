"""What `contexts` makes of a program's wishes: cut to its grant, and refused with a reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pie_daemon.errors import PieError
from pie_daemon.host.context import Model, Models
from pie_daemon.host.interfaces import contexts
from pie_daemon.scheduler.journal import Journal

JOURNAL = Journal(b"\x01\x00\x00\x00")


class FakeScheduler:
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.info = SimpleNamespace(revision="r1")

    def set_priority(self, context: int, priority: int) -> None:
        self.calls.append((context, priority))

    def open_journal(self, owner: str, journal: Journal) -> int:
        self.calls.append((owner, journal))
        return 7


@pytest.fixture
def scheduler() -> FakeScheduler:
    return FakeScheduler()


@pytest.fixture
def host(scheduler: FakeScheduler) -> Any:
    """A program whose contexts may have priorities up to 3, beside one model."""
    fake: Any = scheduler
    nothing: Any = None
    model = Model("crumb", nothing, fake, nothing)
    return SimpleNamespace(
        instance_id="one", priority_max=3, models=Models({"crumb": model}, "crumb"), saved=None
    )


def saved_as(model: str, revision: str) -> Any:
    found = SimpleNamespace(model=model, revision=revision, journal=JOURNAL)
    return SimpleNamespace(get=lambda name: found, pages_of=lambda record, info: None)


@pytest.mark.parametrize(("asked", "given"), [(2, 2), (9, 3), (-9, -3), (0, 0)])
def test_a_priority_is_cut_to_the_grant(
    host: Any, scheduler: FakeScheduler, asked: int, given: int
) -> None:
    """In both directions, without an error."""
    context = contexts.Context(host.models.get(None), 5)
    contexts.set_priority(host, context, asked)
    assert [(5, given)] == scheduler.calls


def test_an_opened_context_belongs_to_who_opens_it(host: Any, scheduler: FakeScheduler) -> None:
    """On the model that it was saved from."""
    host.saved = saved_as("crumb", "r1")
    opened = contexts.open_saved(host, "x")
    assert [("one", JOURNAL)] == scheduler.calls
    assert (7, "crumb") == (opened.id, contexts.model_name(host, opened))


@pytest.mark.parametrize(
    ("model", "revision", "code", "words"),
    [
        ("crumb", "r2", "closed", "'x' was saved from another version of 'crumb'"),
        ("other", "r1", "not-found", "no model is called 'other'; there are: crumb"),
    ],
)
def test_what_another_model_made_is_not_opened(
    host: Any, model: str, revision: str, code: str, words: str
) -> None:
    """Its tokens would mean something else here."""
    host.saved = saved_as(model, revision)
    with pytest.raises(PieError, match=words) as caught:
        contexts.open_saved(host, "x")
    assert code == caught.value.code
