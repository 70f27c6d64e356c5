"""Telling programs that there is something to take."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pie_daemon.scheduler.telling import Later, Teller
from support.waiting import until


@pytest.fixture
def teller() -> Iterator[Teller]:
    teller = Teller("test")
    teller.start()
    yield teller
    teller.stop()


def test_who_only_wakes_a_thread_is_done_at_once(teller: Teller) -> None:
    """On the thread that tells, in order."""
    heard: list[object] = []

    def notify() -> None:
        heard.append(threading.current_thread())

    teller.tell([notify, notify])
    assert [threading.current_thread()] * 2 == heard


def test_the_rest_is_done_elsewhere_for_all_before_anybody_is_woken(teller: Teller) -> None:
    """So that whoever wakes finds what all of them have sent."""
    heard: list[str] = []

    def later(name: str) -> Later:
        def send() -> list[Later]:
            heard.append(f"{name} in {threading.current_thread().name}")
            return [lambda: heard.append(f"wake {name}") or []]

        return send

    one, two = later("a"), later("b")
    teller.tell([lambda: one, lambda: None, lambda: two])
    until(lambda: len(heard) == 4)
    assert ["a in teller-test", "b in teller-test", "wake a", "wake b"] == heard


def test_a_failure_leaves_the_others_alone(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; nobody waits for ever because of another."""
    heard: list[str] = []

    def fail() -> list[Later]:
        raise ZeroDivisionError

    def well() -> list[Later]:
        heard.append("well")
        return []

    teller.tell([lambda: fail, lambda: well])
    until(lambda: heard == ["well"])
    assert "ZeroDivisionError" in caplog.text


def test_a_stop_comes_after_what_was_left_to_do() -> None:
    """Nothing that was announced is lost."""
    teller = Teller("test")
    teller.start()
    held = threading.Event()
    heard: list[str] = []

    def wait() -> list[Later]:
        held.wait(30)
        heard.append("done")
        return []

    teller.tell([lambda: wait])
    threading.Timer(0.01, held.set).start()
    teller.stop()
    assert ["done"] == heard


def test_what_is_left_to_do_is_left_once(teller: Teller) -> None:
    """However often it is announced before it is done."""
    begun, held = threading.Event(), threading.Event()
    heard: list[str] = []

    def wait() -> list[Later]:
        begun.set()
        held.wait(30)
        return []

    def well() -> list[Later]:
        heard.append("well")
        return []

    teller.tell([lambda: wait])
    assert begun.wait(30)
    for _ in range(5):
        teller.tell([lambda: well])
    held.set()
    until(lambda: bool(heard))
    teller.stop()
    assert ["well"] == heard
