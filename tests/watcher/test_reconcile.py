"""Decisions about the folder, without a folder and without time passing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pie_daemon.watcher.reconcile import (
    Attempt,
    Install,
    Reconciler,
    Refuse,
    Remove,
    Settling,
)
from pie_daemon.watcher.scan import Found, Stamp


def found(name: str, version: int = 1, *, sidecar: int | None = None, **more: Any) -> Found:
    beside = None if sidecar is None else Stamp(1, 2, 3, sidecar)
    return Found(name, Path(f"{name}.wasm"), Stamp(1, 1, 10, version), beside, **more)


def listing(*items: Found) -> dict[str, Found]:
    return {item.name: item for item in items}


@pytest.fixture
def reconciler() -> Reconciler:
    """Settles in one second; the first look, which may be quicker, has been had."""
    reconciler = Reconciler(settle_s=1.0)
    assert reconciler.observe({}, 0.0) == []
    return reconciler


def install(reconciler: Reconciler, item: Found, at_s: float, digest: str | None = None) -> Install:
    """Lets a version settle and its install end."""
    reconciler.observe(listing(item), at_s)
    (order,) = reconciler.observe(listing(item), at_s + 1)
    assert isinstance(order, Install)
    reconciler.finished(Attempt(item.name, digest or f"of {item.version}"), at_s + 1)
    return order


def test_file_is_taken_when_it_has_been_quiet(reconciler: Reconciler) -> None:
    """Each write starts the wait anew; the version that is taken is the last one."""
    assert [Settling("a")] == reconciler.observe(listing(found("a", 1)), 10.0)
    assert [] == reconciler.observe(listing(found("a", 2)), 10.9)
    assert [] == reconciler.observe(listing(found("a", 2)), 11.8)
    assert pytest.approx(0.1) == reconciler.next_look_s(11.8)
    assert {"a": "settling"} == reconciler.pending()

    assert [Install(found("a", 2), None)] == reconciler.observe(listing(found("a", 2)), 11.9)
    assert {"a": "installing"} == reconciler.pending()


def test_settled_file_is_left_alone(reconciler: Reconciler) -> None:
    """Nothing is due while nothing changes."""
    install(reconciler, found("a"), 0.0)

    assert [] == reconciler.observe(listing(found("a")), 100.0)
    assert reconciler.next_look_s(100.0) is None
    assert {} == reconciler.pending()


def test_one_install_at_a_time_in_order_of_arrival(reconciler: Reconciler) -> None:
    """The second program waits for the end of the first one's install, however long."""
    both = listing(found("b"), found("a"))
    reconciler.observe(listing(found("b")), 0.0)
    reconciler.observe(both, 0.5)

    assert [Install(found("b"), None)] == reconciler.observe(both, 1.5)
    assert [] == reconciler.observe(both, 60.0)
    assert reconciler.next_look_s(60.0) is None

    reconciler.finished(Attempt("b", "x"), 61.0)
    assert [Install(found("a"), None)] == reconciler.observe(both, 61.0)


def test_change_during_install_is_taken_next(reconciler: Reconciler) -> None:
    """A version that came while the last one compiled gets its own turn."""
    reconciler.observe(listing(found("a", 1)), 0.0)
    reconciler.observe(listing(found("a", 1)), 1.0)
    assert [] == reconciler.observe(listing(found("a", 2)), 2.0)
    assert [] == reconciler.observe(listing(found("a", 2)), 9.0)

    reconciler.finished(Attempt("a", "first"), 9.0)

    assert [Install(found("a", 2), "first")] == reconciler.observe(listing(found("a", 2)), 9.0)


def test_removed_file_leaves_after_the_same_quiet_time(reconciler: Reconciler) -> None:
    """Deleting and writing anew, as editors do, takes the program away at no time."""
    install(reconciler, found("a"), 0.0)

    assert [] == reconciler.observe({}, 10.0)
    assert {"a": "leaving"} == reconciler.pending()
    assert [] == reconciler.observe(listing(found("a")), 10.5)
    assert [] == reconciler.observe({}, 20.0)
    assert pytest.approx(1.0) == reconciler.next_look_s(20.0)
    assert [Remove("a")] == reconciler.observe({}, 21.0)
    assert [Settling("a")] == reconciler.observe(listing(found("a")), 30.0)


def test_file_removed_during_its_install_leaves_afterwards(reconciler: Reconciler) -> None:
    """The removal cannot be overtaken by the install that it came too late for."""
    reconciler.observe(listing(found("a")), 0.0)
    reconciler.observe(listing(found("a")), 1.0)
    assert [] == reconciler.observe({}, 2.0)
    assert [] == reconciler.observe({}, 50.0)

    reconciler.finished(Attempt("a", "x"), 50.0)

    assert [Remove("a")] == reconciler.observe({}, 50.0)


def test_rejected_content_waits_for_a_change(reconciler: Reconciler) -> None:
    """The same stamp is never tried twice; another one carries the digest to compare with."""
    install(reconciler, found("a", 1), 0.0, digest="bad")

    assert [] == reconciler.observe(listing(found("a", 1)), 1000.0)
    order = install(reconciler, found("a", 2), 1001.0)

    assert "bad" == order.known_digest


def test_failure_is_tried_again_with_growing_pauses(reconciler: Reconciler) -> None:
    """What may succeed without a change is repeated, ever less often, up to a limit."""
    item = found("a")
    reconciler.observe(listing(item), 0.0)
    now_s, pauses = 1.0, []
    for _ in range(10):
        assert [Install(item, None)] == reconciler.observe(listing(item), now_s)
        reconciler.finished(Attempt("a", None, failed=True), now_s)
        assert {"a": "retrying"} == reconciler.pending()
        pause_s = reconciler.next_look_s(now_s)
        assert pause_s is not None
        assert [] == reconciler.observe(listing(item), now_s + pause_s * 0.99)
        pauses.append(pause_s)
        now_s += pause_s

    assert [2.0, 4.0, 8.0] == pauses[:3]
    assert 300.0 == pauses[-1]


def test_refusal_is_said_once_and_needs_no_turn(reconciler: Reconciler) -> None:
    """What is not even opened does not wait for the install of another program."""
    items = listing(found("a"), found("b", refusal="too large"))
    reconciler.observe(items, 0.0)

    assert [Install(found("a"), None), Refuse("b", "too large")] == reconciler.observe(items, 1.0)
    assert [] == reconciler.observe(items, 2.0)
    assert {"a": "installing"} == reconciler.pending()


def test_sidecar_alone_makes_a_new_version(reconciler: Reconciler) -> None:
    """A manifest that is added, changed or removed beside the file is a change of the program."""
    install(reconciler, found("a"), 0.0)
    install(reconciler, found("a", sidecar=1), 10.0)
    install(reconciler, found("a", sidecar=2), 20.0)
    install(reconciler, found("a"), 30.0)


def test_old_files_need_not_settle_at_the_start() -> None:
    """Programs that lay there before the daemon started are taken at the first look."""
    reconciler = Reconciler(settle_s=1.0)
    items = listing(found("old", 10**9), found("young", 5 * 10**9))

    actions = reconciler.observe(items, 0.0, wall_ns=55 * 10**8)

    assert [Settling("old"), Settling("young"), Install(items["old"], None)] == actions
