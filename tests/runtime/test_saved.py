"""Saved contexts: per user, within limits, and on the disk when they are to last."""

from __future__ import annotations

import errno
import os
from array import array
from pathlib import Path

import pytest
import structlog

from pie_daemon.errors import PieError
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.saved import MAX_NAME_BYTES, SavedContexts, UserContexts
from pie_daemon.runtime.saved_record import PageForm, SavedContext
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.visibility import EVERYTHING

HIDDEN = EVERYTHING.changed(2, 0, 2, False).changed(4, 0, 1, True)


def journal(*tokens: int) -> Journal:
    return Journal(array("I", tokens).tobytes(), HIDDEN, 1)


class Saving:
    """A folder that is opened anew as by a restarted daemon."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder = folder
        self.limits = LimitsConfig(**limits)  # type: ignore[arg-type]
        self.restart()

    def restart(self) -> None:
        self.contexts = SavedContexts(self.folder, lambda: self.limits)

    def of(self, user: str) -> UserContexts:
        return UserContexts(self.contexts, user)

    def save(self, name: str, *tokens: int, user: str = "ann", durable: bool = True) -> None:
        record = SavedContext(user, name, "crumb", "r1", journal(*tokens))
        self.contexts.save(user, name, record, durable)

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*/*"))


@pytest.fixture
def saving(tmp_path: Path) -> Saving:
    return Saving(tmp_path / "contexts")


def code_of(error: pytest.ExceptionInfo[PieError]) -> str:
    return error.value.code


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_saved_is_found_whole(saving: Saving, durable: bool) -> None:
    """Tokens, what they saw, and whose model it was."""
    saving.save("a/b: c", 5, 6, 7, durable=durable)
    expected = SavedContext("ann", "a/b: c", "crumb", "r1", journal(5, 6, 7))
    assert expected == saving.of("ann").get("a/b: c")
    assert [5, 6, 7] == saving.of("ann").get("a/b: c").journal.tokens


def test_only_durable_ones_survive_a_restart(saving: Saving) -> None:
    """The others are as if they had never been."""
    saving.save("kept", 1)
    saving.save("lost", 2, durable=False)
    saving.restart()
    assert ["kept"] == saving.of("ann").names()
    assert [1] == saving.of("ann").get("kept").journal.tokens


def test_a_user_sees_only_his_own(saving: Saving) -> None:
    """Also when names are equal, and after a restart."""
    saving.save("x", 1, user="ann")
    saving.save("x", 2, user="zoe")
    saving.restart()
    assert [1] == saving.of("ann").get("x").journal.tokens
    saving.of("ann").delete("x")
    assert [2] == saving.of("zoe").get("x").journal.tokens
    assert [] == saving.of("ann").names()


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_saving_again_replaces(saving: Saving, first: bool, second: bool) -> None:
    """Nothing of the old one comes back, whichever of them is durable."""
    saving.save("x", 1, durable=first)
    saving.save("x", 2, 3, durable=second)
    assert [2, 3] == saving.of("ann").get("x").journal.tokens
    saving.restart()
    assert (["x"] if second else []) == saving.of("ann").names()
    assert second == bool(saving.files())


def test_deleting_leaves_nothing_behind(saving: Saving) -> None:
    """What was never there is told by name, with what there is."""
    saving.save("x", 1)
    saving.save("y", 1, durable=False)
    saving.of("ann").delete("x")
    assert (["y"], []) == (saving.of("ann").names(), saving.files())
    with pytest.raises(PieError, match="no context is saved as 'x'; there are: y") as caught:
        saving.of("ann").delete("x")
    assert "not-found" == code_of(caught)


@pytest.mark.parametrize("name", ["", "x" * (MAX_NAME_BYTES + 1), "a\nb", "\x00", "\x1b[2J"])
def test_names_are_short_printable_text(saving: Saving, name: str) -> None:
    """They go into logs and answers; nothing is saved."""
    with pytest.raises(PieError, match="printable text") as caught:
        saving.save(name, 1)
    assert "invalid-argument" == code_of(caught)
    assert [] == saving.files()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/abs", "é" * 100, "con", "."])
def test_a_name_is_never_a_path(saving: Saving, name: str) -> None:
    """Any text is only text."""
    saving.save(name, 1)
    saving.restart()
    assert [name] == saving.of("ann").names()
    assert all(saving.folder in path.parents for path in saving.files())


def test_limits_hold_for_a_user_and_name_themselves(tmp_path: Path) -> None:
    """Durable or not; replacing one is no new one; nothing changes by what is refused."""
    saving = Saving(tmp_path / "contexts", saved_contexts=2, saved_tokens=10)
    saving.save("a", *range(4), durable=False)
    saving.save("b", *range(4))
    with pytest.raises(PieError, match=r"limits.saved_contexts=2") as caught:
        saving.save("c", 1)
    assert "quota" == code_of(caught)
    saving.save("b", *range(6))
    with pytest.raises(PieError, match=r"limits.saved_tokens=10") as caught:
        saving.save("b", *range(7))
    assert "quota" == code_of(caught)
    saving.save("c", *range(10), user="zoe")
    saving.restart()
    assert 6 == saving.of("ann").get("b").journal.num_tokens


@pytest.mark.parametrize("damage", ["cut", "flip", "grow", "other", "empty", "newer"])
def test_a_damaged_record_is_reported_and_the_others_stay(saving: Saving, damage: str) -> None:
    """The name is free again."""
    saving.save("good", 1, 2)
    [good] = saving.files()
    saving.save("bad", *range(50))
    [bad] = set(saving.files()) - {good}
    content = bad.read_bytes()
    spoilt = {
        "cut": content[:-20],
        "flip": content[:40] + bytes([content[40] ^ 1]) + content[41:],
        "grow": content + b"x",
        "other": good.read_bytes(),
        "empty": b"",
        "newer": content.replace(b"context-1", b"context-2"),
    }[damage]
    bad.write_bytes(spoilt)
    with pytest.raises(PieError) as caught:
        saving.of("ann").get("bad")
    assert "internal" == code_of(caught)
    saving.restart()
    with structlog.testing.capture_logs() as logged:
        assert ["good"] == saving.of("ann").names()
    assert [(str(bad), "error")] == [(line["path"], line["log_level"]) for line in logged]
    saving.save("bad", 9)
    saving.restart()
    assert ["bad", "good"] == saving.of("ann").names()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "exhausted"), (errno.EIO, "internal")])
def test_a_disk_that_fails_is_told_and_keeps_what_was(
    saving: Saving, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    """The old content stays; a restart clears what was half written."""
    saving.save("x", 1)

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(PieError, match=os.strerror(number)) as caught:
            saving.save("x", 2)
    assert code == code_of(caught)
    (saving.files()[0].parent / "half.partial").touch()
    saving.restart()
    assert [1] == saving.of("ann").get("x").journal.tokens
    assert 1 == len(saving.files())


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    """At the start, and not when somebody saves."""
    (tmp_path / "file").touch()
    with pytest.raises(PieError, match="cannot use"):
        Saving(tmp_path / "file" / "contexts")


FORM = PageForm("float32", 1, 100)


def room(saving: Saving, name: str, *tokens: int, user: str = "ann") -> Path | None:
    """Where the pages may go; they are written there."""
    record = SavedContext(user, name, "crumb", "r1", journal(*tokens))
    path = saving.contexts.save(user, name, record, True, FORM)
    if path is not None:
        path.write_bytes(bytes(len(tokens) * 108))
    return path


def test_pages_are_kept_with_exactly_what_they_belong_to(saving: Saving) -> None:
    """Other content, another form or another user has others."""
    path = room(saving, "x", 1, 2)
    record = saving.of("ann").get("x")
    assert path == saving.contexts.pages_of(record, FORM)
    assert saving.contexts.pages_of(record, PageForm("bfloat16", 1, 100)) is None
    saving.restart()
    assert path == saving.contexts.pages_of(saving.of("ann").get("x"), FORM)
    second = room(saving, "x", 1, 3)
    assert [second] == [one for one in saving.files() if one.suffix == ".pages"]
    assert path != second


def test_pages_go_with_what_they_belong_to(saving: Saving) -> None:
    """Deleted, or saved again without lasting."""
    room(saving, "x", 1)
    saving.of("ann").delete("x")
    room(saving, "y", 1)
    saving.save("y", 1, durable=False)
    assert [] == saving.files()


def test_pages_have_a_limit_per_user(tmp_path: Path) -> None:
    """Beyond it only the journal is kept, which is no error; replacing frees what was there."""
    saving = Saving(tmp_path / "contexts", saved_page_bytes=400)
    assert room(saving, "a", 1, 2) is not None
    assert room(saving, "b", 1, 2) is None
    assert room(saving, "b", 1, 2, user="zoe") is not None
    assert room(saving, "a", 1, 2, 3) is not None
    assert ["a", "b"] == saving.of("ann").names()
    assert room(saving, "none") is None
