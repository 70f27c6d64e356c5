"""wasi:io/poll: waiting, always in the instance's mailbox."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pie_daemon.host.abi import Interface
from pie_daemon.host.guest import current


class Pollable:
    """Always ready, as all streams of this host are."""

    # Point on `time.monotonic_ns`'s axis at which it becomes ready by itself.
    at_ns: int | None = None

    def ready(self) -> bool:
        return True

    def block(self) -> None:
        poll([self])


class Timer(Pollable):
    def __init__(self, at_ns: int) -> None:
        self.at_ns: int = at_ns

    def ready(self) -> bool:
        return time.monotonic_ns() >= self.at_ns


def poll(pollables: Sequence[Pollable]) -> list[int]:
    """Blocks until at least one is ready; the indices of the ready ones."""
    if not pollables:
        raise ValueError("poll needs at least one pollable")
    mailbox = current().mailbox
    while True:
        mailbox.check()
        ready = [index for index, one in enumerate(pollables) if one.ready()]
        if ready:
            return ready
        ends_ns = [one.at_ns for one in pollables if one.at_ns is not None]
        timeout_s = (min(ends_ns) - time.monotonic_ns()) / 1e9 if ends_ns else None
        mailbox.wait(lambda: any(one.ready() for one in pollables), timeout_s)


INTERFACES = [Interface("wasi:io/poll@0.2.0", {"poll": poll}, {"pollable": Pollable})]
