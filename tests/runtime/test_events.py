"""The event log of an instance."""

from pie_daemon.runtime.events import EventLog


def numbers(log: EventLog, after: int = 0, max_bytes: int = 10**6) -> list[int]:
    return [event.seq for event in log.read(after, max_bytes)]


def test_events_are_numbered_from_one_and_read_behind_a_number() -> None:
    """A reader that has seen event n gets n+1 and later, in order."""
    log = EventLog()
    for text in (b"a", b"b", b"c"):
        log.append("message", text)

    assert [1, 2, 3] == numbers(log)
    assert [3] == numbers(log, after=2)
    assert [] == numbers(log, after=3)


def test_acknowledged_events_are_dropped_and_their_bytes_given_back() -> None:
    """Acknowledging frees the room and tells the writer so."""
    freed: list[bool] = []
    log = EventLog(on_ack=lambda: freed.append(True))
    log.append("message", b"x" * 100)
    log.append("message", b"y" * 100)
    before = log.unacked_bytes

    log.ack(1)

    assert before > log.unacked_bytes > 100
    assert [2] == numbers(log)
    log.ack(99)
    assert 0 == log.unacked_bytes
    assert [True, True] == freed


def test_a_read_is_bounded_but_never_empty_while_there_is_something() -> None:
    """An event larger than the bound still gets through, alone."""
    log = EventLog()
    log.append("blob", b"z" * 1000, "big")
    log.append("message", b"small")

    assert [1] == numbers(log, max_bytes=10)
    assert [2] == numbers(log, after=1, max_bytes=10)


def test_what_is_put_is_there_at_once_and_wakes_its_readers_later() -> None:
    """Every subscriber hears of it; what they return is left to the caller."""
    log = EventLog()
    heard: list[str] = []
    log.subscribe(lambda: lambda: heard.append("woken"))
    log.subscribe(lambda: heard.append("told"))
    [wake] = log.put("message", b"one")
    assert ([1], ["told"]) == (numbers(log), heard)
    wake()
    log.append("message", b"two")
    assert ["told", "woken", "told", "woken"] == heard


def test_subscribers_hear_of_every_append_until_they_leave() -> None:
    """Unsubscribing twice is harmless."""
    log = EventLog()
    heard: list[int] = []
    leave = log.subscribe(lambda: heard.append(log.last_seq))
    log.append("stdout", b"one")
    leave()
    leave()
    log.append("stdout", b"two")

    assert [1] == heard
