"""WIT interface `messaging`: queues and broadcasts between the programs of one user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.context import HostContext
from pie_daemon.host.topics import Subscription
from pie_daemon.host.waitable import Waitable


def push(host: HostContext, topic: str, message: str) -> None:
    host.topics.push(host.username, topic, message)


def publish(host: HostContext, topic: str, message: str) -> None:
    host.topics.publish(host.username, topic, message)


def pull(host: HostContext, topic: str) -> Subscription:
    return host.topics.pull(host.username, topic, host.mailbox.wake)


def listen(host: HostContext, topic: str) -> Subscription:
    return host.topics.listen(host.username, topic, host.mailbox.wake)


def subscribe(host: HostContext, subscription: Subscription) -> Waitable:
    return Waitable(lambda: subscription.ready)


def next_message(
    host: HostContext, subscription: Subscription, timeout_ms: int | None
) -> str | None:
    if (message := subscription.take()) is not None or timeout_ms == 0:
        return message
    subscription.wait_in_line()
    host.mailbox.wait(lambda: subscription.ready, None if timeout_ms is None else timeout_ms / 1000)
    return subscription.take()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "push": push,
    "publish": publish,
    "pull": pull,
    "listen": listen,
    "[method]subscription.subscribe": subscribe,
    "[method]subscription.next": next_message,
}
