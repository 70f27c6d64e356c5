"""Programs that one batch has answered go on a few at a time."""

from __future__ import annotations

import threading

from pie_daemon.host.mailbox import Mailbox
from pie_daemon.host.turnstile import PATIENCE_S, Turnstile

HANG_S = 60.0


def woken(mailboxes: list[Mailbox]) -> list[int]:
    """Which of them have a wake that they have not taken."""
    return [number for number, mailbox in enumerate(mailboxes) if mailbox.num_pending]


def four(turnstile: Turnstile) -> list[Mailbox]:
    mailboxes = [Mailbox() for _ in range(4)]
    for mailbox in mailboxes:
        turnstile.wake(mailbox)
    return mailboxes


def test_only_as_many_as_are_allowed_are_woken_at_once() -> None:
    """The others wait in the order in which they were answered."""
    assert [0, 1] == woken(four(Turnstile(width=2)))


def test_one_that_waits_again_lets_the_next_go_on() -> None:
    """Its own thread wakes the next one, before it sleeps."""
    mailboxes = four(Turnstile(width=1))
    mailboxes[0].wait(lambda: False, timeout_s=0)
    mailboxes[0].pause()

    assert [0, 1] == woken(mailboxes)


def test_one_that_has_ended_lets_the_next_go_on() -> None:
    """Also one that was stopped while it stood in the line."""
    mailboxes = four(Turnstile(width=1))
    mailboxes[1].close()
    mailboxes[0].close()

    assert [0, 1, 2] == woken(mailboxes)


def test_one_that_takes_long_does_not_hold_up_the_others() -> None:
    """Whatever it does: after a while it is not waited for any more."""
    now_s = 0.0
    turnstile = Turnstile(width=1, clock=lambda: now_s)
    mailboxes = four(turnstile)
    turnstile.relieve()

    assert [0] == woken(mailboxes)

    now_s = 2 * PATIENCE_S
    turnstile.relieve()

    assert [0, 1] == woken(mailboxes)


def test_a_program_that_is_answered_twice_stands_in_the_line_once() -> None:
    """It takes all that there is when it is its turn."""
    mailboxes = four(Turnstile(width=1))
    turnstile = Turnstile(width=1)
    for mailbox in [*mailboxes, *mailboxes]:
        turnstile.wake(mailbox)
    mailboxes[0].pause()
    mailboxes[1].pause()
    mailboxes[2].pause()

    assert [0, 1, 2, 3] == woken(mailboxes)


def test_what_everybody_waits_for_reaches_everybody() -> None:
    """Many threads that come back again and again are all woken, each time."""
    num_programs, num_rounds = 16, 50
    turnstile = Turnstile(width=2)
    mailboxes = [Mailbox() for _ in range(num_programs)]
    answered = [0] * num_programs
    taken = threading.Semaphore(0)

    def program(number: int) -> None:
        for _ in range(num_rounds):
            assert mailboxes[number].wait(lambda: answered[number] > 0, HANG_S)
            answered[number] -= 1
            taken.release()
        mailboxes[number].close()

    threads = [threading.Thread(target=program, args=[n]) for n in range(num_programs)]
    for thread in threads:
        thread.start()
    for _ in range(num_rounds):
        for number, mailbox in enumerate(mailboxes):
            answered[number] += 1
            turnstile.wake(mailbox)
        assert all(taken.acquire(timeout=HANG_S) for _ in mailboxes)
    for thread in threads:
        thread.join(HANG_S)

    assert not any(thread.is_alive() for thread in threads)
