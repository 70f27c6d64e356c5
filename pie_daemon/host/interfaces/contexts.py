"""WIT interface `contexts`: token sequences with their KV pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from pie_daemon.errors import PieError
from pie_daemon.host.context import HostContext, Model
from pie_daemon.host.interfaces.models import check_tokens
from pie_daemon.scheduler.page_jobs import PageJob

_log = structlog.get_logger()


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


def set_visible(host: HostContext, context: Context, start: int, end: int, visible: bool) -> None:
    context.model.scheduler.set_visible(context.id, start, end, visible)


def set_priority(host: HostContext, context: Context, priority: int) -> None:
    """Clamped to what the program was granted."""
    granted = max(-host.priority_max, min(priority, host.priority_max))
    context.model.scheduler.set_priority(context.id, granted)


def model_name(host: HostContext, context: Context) -> str:
    return context.model.name


def save(host: HostContext, context: Context, name: str, durable: bool) -> None:
    """The journal goes to the store on this thread: it is the program that waits for the disk."""
    scheduler = context.model.scheduler
    journal = scheduler.snapshot(context.id)
    path = host.saved.save(name, context.model.info, journal, durable)
    if path is not None:
        _wait(host, scheduler.store_pages(context.id, str(path), host.mailbox.wake))


def open_saved(host: HostContext, name: str) -> Context:
    found = host.saved.get(name)
    model = host.models.get(found.model)
    if found.revision != model.info.revision:
        raise PieError(
            "closed",
            f"{name!r} was saved from another version of {model.name!r}, and this one would read "
            "its tokens differently: delete it, and save a new one",
        )
    scheduler = model.scheduler
    context = Context(model, scheduler.open_journal(host.instance_id, found.journal))
    path = host.saved.pages_of(found, model.info)
    if path is not None:
        _wait(host, scheduler.load_pages(context.id, str(path), host.mailbox.wake))
    return context


def _wait(host: HostContext, job: PageJob) -> None:
    """What could not be moved is computed again: no error of the program's."""
    try:
        host.mailbox.wait(lambda: job.done, None)
    finally:
        job.cancelled = True
    if job.failure is not None:
        _log.warning("saved_pages_failed", reason=job.failure)


def saved(host: HostContext) -> list[str]:
    return host.saved.names()


def delete_saved(host: HostContext, name: str) -> None:
    host.saved.delete(name)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "[static]context.create": create,
    "[method]context.fork": fork,
    "[method]context.length": length,
    "[method]context.tokens": tokens,
    "[method]context.append": append,
    "[method]context.append-text": append_text,
    "[method]context.flush": flush,
    "[method]context.truncate": truncate,
    "[static]context.open": open_saved,
    "[method]context.model-name": model_name,
    "[method]context.set-visible": set_visible,
    "[method]context.save": save,
    "[method]context.set-priority": set_priority,
    "saved": saved,
    "delete-saved": delete_saved,
}
