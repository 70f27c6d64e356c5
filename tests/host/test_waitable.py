"""Waiting on several things at once."""

import threading

import pytest

from pie_daemon.host.mailbox import Mailbox
from pie_daemon.host.stop import Stopped
from pie_daemon.host.waitable import Waitable, timer, wait_any


def test_wait_any_names_every_ready_one_in_order() -> None:
    """What is ready already is answered without blocking."""
    items = [Waitable(lambda: True), Waitable(lambda: False), Waitable(lambda: True)]

    assert [0, 2] == wait_any(Mailbox(), items, None)


def test_wait_any_wakes_when_another_thread_makes_one_ready() -> None:
    """The mailbox's wake makes it look again."""
    mailbox = Mailbox()
    arrived = threading.Event()

    def arrive() -> None:
        arrived.set()
        mailbox.wake()

    thread = threading.Thread(target=arrive)
    thread.start()
    assert [1] == wait_any(mailbox, [Waitable(lambda: False), Waitable(arrived.is_set)], None)
    thread.join()


def test_wait_any_gives_nothing_when_the_timeout_passes() -> None:
    """An empty answer is how a timeout shows; nothing to wait for is one as well."""
    assert [] == wait_any(Mailbox(), [Waitable(lambda: False)], 0.001)
    assert [] == wait_any(Mailbox(), [], 0.0)


def test_a_timer_becomes_ready_by_itself() -> None:
    """Nobody wakes the mailbox; the wait ends at the timer's own deadline."""
    assert [1] == wait_any(Mailbox(), [timer(60), timer(0.001)], None)


def test_a_stopped_instance_does_not_wait() -> None:
    """However long the wait was meant to be."""
    mailbox = Mailbox()
    mailbox.stop("cancelled", "by a test")
    with pytest.raises(Stopped):
        wait_any(mailbox, [timer(60)], None)
