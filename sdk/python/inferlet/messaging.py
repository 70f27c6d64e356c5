"""Messages between the programs of one user: queues, and broadcast.

`push` and `pull` share a queue: each message goes to one puller. What `publish` sends goes to
every subscription that `listen` made before. Queue and broadcast of the same name are two things.
"""

from __future__ import annotations

from collections.abc import Iterator

from inferlet import _host
from inferlet._handle import Handle
from inferlet.events import Waitable, _milliseconds


class Subscription(Handle):
    """What comes in on one topic. It ends with `close`, a `with` block, or the program: what a
    listener had not taken is gone then, and a queue keeps its messages."""

    def next(self, timeout_s: float | None = None) -> str | None:
        """Waits for a message; None when `timeout_s` passed first, and 0 only looks."""
        timeout_ms = None if timeout_s is None else _milliseconds(timeout_s)
        message: str | None = _host.call(self.handle.next, timeout_ms)
        return message

    def __iter__(self) -> Iterator[str]:
        """Messages as they come, without end."""
        while (message := self.next()) is not None:
            yield message

    def waitable(self) -> Waitable:
        """Ready while a message is there. Of a queue another puller may take it first."""
        return Waitable(self.handle.subscribe())


def push(topic: str, message: str) -> None:
    """Adds to the queue, whether or not somebody pulls; raises `Exhausted` when it is full."""
    _host.call(_host.messaging.push, topic, message)


def pull(topic: str) -> Subscription:
    """Takes from the queue; who has waited longest is served first."""
    return Subscription(_host.call(_host.messaging.pull, topic))


def publish(topic: str, message: str) -> None:
    """To every listener, or, when one lags too far behind, to none: `Exhausted`."""
    _host.call(_host.messaging.publish, topic, message)


def listen(topic: str) -> Subscription:
    """Gets every message published from now on."""
    return Subscription(_host.call(_host.messaging.listen, topic))
