"""Messages from a client to an instance."""

import pytest

from pie_daemon.errors import PieError
from pie_daemon.host.inbox import Inbox


def test_messages_come_out_in_the_order_they_went_in() -> None:
    """Texts and blobs share one queue, and each arrival wakes the instance."""
    wakes: list[None] = []
    inbox = Inbox(1000, lambda: wakes.append(None))
    inbox.put_text("hello")
    inbox.put_blob("picture", b"\x00\x01")

    assert ("text", "hello") == inbox.take()
    assert ("blob", ("picture", b"\x00\x01")) == inbox.take()
    assert not inbox.ready
    assert 2 == len(wakes)


def test_an_overfull_inbox_refuses_the_sender_and_keeps_what_it_has() -> None:
    """The error names the limit; after a take there is room again."""
    inbox = Inbox(10, lambda: None)
    inbox.put_text("12345678")
    with pytest.raises(PieError, match=r"limits\.inbox_bytes=10") as refused:
        inbox.put_text("123")
    assert "exhausted" == refused.value.code

    assert ("text", "12345678") == inbox.take()
    inbox.put_text("123")


def test_a_closed_inbox_hands_out_the_rest_and_then_the_end() -> None:
    """None means that there will never be another message."""
    inbox = Inbox(10, lambda: None)
    inbox.put_text("last")
    inbox.close()

    assert inbox.ready
    assert ("text", "last") == inbox.take()
    assert inbox.ready
    assert inbox.take() is None
    with pytest.raises(PieError, match="closed"):
        inbox.put_text("late")
