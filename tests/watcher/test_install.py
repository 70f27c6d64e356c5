"""One install: what is retried, what waits for a change, what is no news."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_daemon.errors import PieError
from pie_daemon.watcher.install import attempt
from pie_daemon.watcher.reconcile import Attempt, Install
from pie_daemon.watcher.scan import scan
from support.folder import FakeStore


@pytest.fixture
def order(tmp_path: Path) -> Install:
    (tmp_path / "a.wasm").write_bytes(b"good")
    return Install(scan(tmp_path, 100)["a"], None)


def test_same_content_is_not_installed_again(store: FakeStore, order: Install) -> None:
    """The digest of the last attempt decides, not the time of the file."""
    first = attempt(store, "system", order)
    again = attempt(store, "system", Install(order.found, first.digest))

    assert first == again
    assert ["a"] == store.installs


def test_refused_content_is_remembered(
    store: FakeStore, order: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal about the bytes keeps their digest, so that a touch does not repeat it."""
    monkeypatch.setattr(store, "install", _raise(PieError("unsupported", "imports x:y/z")))

    result = attempt(store, "system", order)

    assert result.digest is not None
    assert not result.failed
    assert {"a": "imports x:y/z"} == store.reasons


@pytest.mark.parametrize(
    "error",
    [PieError("busy", "later"), PieError("exhausted", "disk"), OSError(28, "No space left")],
)
def test_trouble_of_the_moment_is_tried_again(
    store: FakeStore, order: Install, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A full disk is no fault of the program; the reason is shown all the same."""
    monkeypatch.setattr(store, "install", _raise(error))

    assert Attempt("a", None, failed=True) == attempt(store, "system", order)
    assert "tried again" in store.reasons["a"]


def test_file_that_vanished_is_left_to_the_next_look(store: FakeStore, order: Install) -> None:
    """A file that is gone is no rejection."""
    order.found.path.unlink()

    assert Attempt("a", None, failed=True) == attempt(store, "system", order)
    assert {} == store.reasons


def test_file_written_during_its_install_has_no_known_content(
    store: FakeStore, order: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store took may differ from what was hashed; the next version is compared to none."""
    path = order.found.path
    monkeypatch.setattr(store, "install", lambda *_: path.write_bytes(b"good, changed"))

    assert Attempt("a", None) == attempt(store, "system", order)


def _raise(error: Exception) -> object:
    def install(*_: object) -> None:
        raise error

    return install


def test_file_refused_while_it_was_copied_again_has_no_known_content(
    store: FakeStore, order: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it was read; whole again, and the same as before, it has to be taken."""

    def half(*_: object) -> None:
        order.found.path.write_bytes(b"go")
        raise PieError("invalid-argument", "the file is cut short")

    monkeypatch.setattr(store, "install", half)

    assert Attempt("a", None) == attempt(store, "system", order)
