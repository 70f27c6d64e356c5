"""WIT interface `contexts`: token sequences with their KV pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.context import HostContext, Model
from pie_daemon.host.interfaces.models import check_tokens
from pie_daemon.host.interfaces.unsupported import refusals


class Context:
    """A context of the scheduler; the instance table frees its pages with its last reference."""

    def __init__(self, model: Model, context_id: int) -> None:
        self.model = model
        self.id = context_id

    def close(self) -> None:
        self.model.scheduler.drop_context(self.id)


def create(host: HostContext, model: Model) -> Context:
    return Context(model, model.scheduler.create_context(host.instance_id))


def fork(host: HostContext, context: Context) -> Context:
    return Context(context.model, context.model.scheduler.fork(context.id))


def length(host: HostContext, context: Context) -> int:
    return context.model.scheduler.length(context.id)


def tokens(host: HostContext, context: Context, start: int, end: int) -> list[int]:
    return context.model.scheduler.tokens(context.id, start, end)


def append(host: HostContext, context: Context, new_tokens: list[int]) -> None:
    check_tokens(context.model, new_tokens)
    context.model.scheduler.append(context.id, new_tokens)


def append_text(host: HostContext, context: Context, text: str) -> int:
    """Encoded without special tokens; answers how many tokens it became."""
    new_tokens = context.model.tokenizer.encode(text, False)
    context.model.scheduler.append(context.id, new_tokens)
    return len(new_tokens)


def flush(host: HostContext, context: Context) -> None:
    scheduler = context.model.scheduler
    request = scheduler.flush(context.id, host.mailbox.wake)
    if request is None:
        return
    try:
        host.mailbox.wait(lambda: scheduler.ready(request), None)
        scheduler.take(request)
    finally:
        scheduler.drop_request(request)


def truncate(host: HostContext, context: Context, new_length: int) -> None:
    context.model.scheduler.truncate(context.id, new_length)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "[static]context.create": create,
    "[method]context.fork": fork,
    "[method]context.length": length,
    "[method]context.tokens": tokens,
    "[method]context.append": append,
    "[method]context.append-text": append_text,
    "[method]context.flush": flush,
    "[method]context.truncate": truncate,
    **refusals(
        (
            "[static]context.open",
            "[method]context.set-visible",
            "[method]context.save",
            "[method]context.set-priority",
            "saved",
            "delete-saved",
        )
    ),
}
