"""Queues and broadcasts between the programs of one user, bounded and in memory.

A queue hands each message to one puller: to the one that has waited longest, or, while none
waits, to the next that asks. A broadcast reaches every listener, or none when one is full.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pie_daemon.errors import PieError

_OVERHEAD_BYTES = 64
"""Charged per message beside its text, so that a flood of empty ones is bounded as well."""
_MAX_NAME_BYTES = 256

Key = tuple[str, str]
"""User and topic."""


class TopicLimits(Protocol):
    """Named as in the configuration's section `limits`."""

    @property
    def topic_messages(self) -> int: ...

    @property
    def topic_bytes(self) -> int: ...

    @property
    def messaging_bytes(self) -> int:
        """Of all topics of one user together."""
        ...


class _Line:
    """Messages of one user that wait in order. Belongs to the lock of its `Topics`."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def room_for(self, size_bytes: int, limits: TopicLimits) -> str | None:
        """None when there is room, else the limit that is in the way."""
        if len(self._texts) >= limits.topic_messages:
            return (
                f"{len(self._texts)} messages wait; limits.topic_messages={limits.topic_messages}"
            )
        if self._bytes + size_bytes > limits.topic_bytes:
            return (
                f"{self._bytes} bytes wait and this message takes {size_bytes}; "
                f"limits.topic_bytes={limits.topic_bytes}"
            )
        return None

    def put(self, text: str) -> None:
        self._texts.append(text)
        self._bytes += _size(text)

    def put_back(self, text: str) -> None:
        self._texts.appendleft(text)
        self._bytes += _size(text)

    def take(self) -> str:
        text = self._texts.popleft()
        self._bytes -= _size(text)
        return text


class Subscription:
    """One program's end of a topic; `wake` is called when there is something to take."""

    def __init__(self, topics: Topics, key: Key, line: _Line, wake: Callable[[], None]) -> None:
        self.topics = topics
        self.key = key
        self.line = line
        self.wake = wake
        self.handed: str | None = None
        """A message of a queue that is this waiter's already."""

    @property
    def ready(self) -> bool:
        return self.handed is not None or len(self.line) > 0

    def take(self) -> str | None:
        return self.topics.take(self)

    def wait_in_line(self) -> None:
        """From here until `take` or `close`, this one is served before those that come later."""
        self.topics.wait_in_line(self)

    def close(self) -> None:
        self.topics.leave(self)


@dataclass(slots=True)
class _Queue:
    line: _Line = field(default_factory=_Line)
    pullers: list[Subscription] = field(default_factory=list)
    waiting: deque[Subscription] = field(default_factory=deque)


class Topics:
    """Those of all users; thread-safe. Users never meet, and neither do queue and broadcast."""

    def __init__(self, limits: Callable[[], TopicLimits]) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._queues: dict[Key, _Queue] = {}
        self._listeners: dict[Key, list[Subscription]] = {}
        self._used: Counter[str] = Counter()

    @property
    def num_topics(self) -> int:
        """With a message or somebody subscribed."""
        return len(self._queues) + len(self._listeners)

    @property
    def num_subscriptions(self) -> int:
        with self._lock:
            pullers = sum(len(queue.pullers) for queue in self._queues.values())
            return pullers + sum(len(listeners) for listeners in self._listeners.values())

    def used_bytes(self, user: str) -> int:
        return self._used[user]

    def push(self, user: str, topic: str, text: str) -> None:
        """
        Raises:
            PieError: exhausted when the queue is full, naming topic and limit.
        """
        key = _key(user, topic)
        with self._lock:
            queue = self._queues.get(key) or _Queue()
            self._check(key, "queue", [queue.line], text)
            if queue.waiting:
                waiter = queue.waiting.popleft()
                waiter.handed = text
                woken = [waiter]
            else:
                self._queues[key] = queue
                self._put(user, queue.line, text)
                woken = list(queue.pullers)
        _wake(woken)

    def publish(self, user: str, topic: str, text: str) -> None:
        """
        Raises:
            PieError: exhausted when a listener's line is full; then nobody gets the message.
        """
        key = _key(user, topic)
        with self._lock:
            listeners = list(self._listeners.get(key, ()))
            self._check(key, "broadcast", [one.line for one in listeners], text)
            for one in listeners:
                self._put(user, one.line, text)
        _wake(listeners)

    def pull(self, user: str, topic: str, wake: Callable[[], None]) -> Subscription:
        key = _key(user, topic)
        with self._lock:
            queue = self._queues.setdefault(key, _Queue())
            subscription = Subscription(self, key, queue.line, wake)
            queue.pullers.append(subscription)
            return subscription

    def listen(self, user: str, topic: str, wake: Callable[[], None]) -> Subscription:
        key = _key(user, topic)
        with self._lock:
            subscription = Subscription(self, key, _Line(), wake)
            self._listeners.setdefault(key, []).append(subscription)
            return subscription

    def take(self, subscription: Subscription) -> str | None:
        """The next message, or None; either way it waits no longer."""
        with self._lock:
            self._leave_line(subscription)
            if (handed := subscription.handed) is not None:
                subscription.handed = None
                return handed
            return self._take(subscription)

    def wait_in_line(self, subscription: Subscription) -> None:
        with self._lock:
            queue = self._queue_of(subscription)
            if queue is not None and not subscription.ready:
                queue.waiting.append(subscription)

    def leave(self, subscription: Subscription) -> None:
        with self._lock:
            queue = self._queue_of(subscription)
            if queue is None:
                self._leave_broadcast(subscription)
                return
            self._leave_line(subscription)
            queue.pullers.remove(subscription)
            woken = self._give_back(subscription, queue)
            self._forget_if_idle(subscription.key, queue)
        _wake(woken)

    # Below: the lock is held.

    def _check(self, key: Key, kind: str, lines: list[_Line], text: str) -> None:
        user, topic = key
        limits, size = self._limits(), _size(text)
        reasons = [reason for line in lines if (reason := line.room_for(size, limits)) is not None]
        if not reasons and self._used[user] + size * len(lines) > limits.messaging_bytes:
            reasons = [
                f"{self._used[user]} bytes wait in all topics of {user} and this message takes "
                f"{size * len(lines)}; limits.messaging_bytes={limits.messaging_bytes}"
            ]
        if reasons:
            whose = "" if kind == "queue" else " of a listener"
            raise PieError("exhausted", f"{kind} {topic!r} is full{whose}: {reasons[0]}")

    def _put(self, user: str, line: _Line, text: str) -> None:
        line.put(text)
        self._used[user] += _size(text)

    def _take(self, subscription: Subscription) -> str | None:
        if not len(subscription.line):
            return None
        text = subscription.line.take()
        self._credit(subscription.key[0], _size(text))
        queue = self._queue_of(subscription)
        if queue is not None:
            self._forget_if_idle(subscription.key, queue)
        return text

    def _credit(self, user: str, size_bytes: int) -> None:
        self._used[user] -= size_bytes
        if not self._used[user]:
            del self._used[user]

    def _queue_of(self, subscription: Subscription) -> _Queue | None:
        queue = self._queues.get(subscription.key)
        return queue if queue is not None and queue.line is subscription.line else None

    def _leave_line(self, subscription: Subscription) -> None:
        queue = self._queue_of(subscription)
        if queue is not None and subscription in queue.waiting:
            queue.waiting.remove(subscription)

    def _give_back(self, subscription: Subscription, queue: _Queue) -> list[Subscription]:
        """A message that was handed over and never taken stays the next one of its queue."""
        text, subscription.handed = subscription.handed, None
        if text is None:
            return []
        if queue.waiting:
            waiter = queue.waiting.popleft()
            waiter.handed = text
            return [waiter]
        queue.line.put_back(text)
        self._used[subscription.key[0]] += _size(text)
        return list(queue.pullers)

    def _forget_if_idle(self, key: Key, queue: _Queue) -> None:
        if not queue.pullers and not len(queue.line):
            del self._queues[key]

    def _leave_broadcast(self, subscription: Subscription) -> None:
        listeners = self._listeners.get(subscription.key, [])
        if subscription not in listeners:
            return
        listeners.remove(subscription)
        self._credit(subscription.key[0], subscription.line.size_bytes)
        if not listeners:
            del self._listeners[subscription.key]


def _key(user: str, topic: str) -> Key:
    if not 0 < len(topic.encode()) <= _MAX_NAME_BYTES:
        raise PieError(
            "invalid-argument", f"a topic's name has 1 to {_MAX_NAME_BYTES} bytes: {topic[:80]!r}"
        )
    return user, topic


def _size(text: str) -> int:
    return len(text.encode()) + _OVERHEAD_BYTES


def _wake(subscriptions: list[Subscription]) -> None:
    for one in subscriptions:
        one.wake()
