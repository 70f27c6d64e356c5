"""Contexts as journals and back, and the pages of those that are kept in files."""

from __future__ import annotations

from collections.abc import Callable

from pie_backend.batch import BackendInfo
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.limits import Limits
from pie_daemon.scheduler.owners import Owner
from pie_daemon.scheduler.page_jobs import PageJob, PageJobs


class Saving:
    """The state machine's part that knows what saved contexts are made of."""

    def __init__(
        self,
        info: BackendInfo,
        contexts: ContextTable,
        limits: Limits,
        num_reserved: Callable[[], int],
    ) -> None:
        self.jobs = PageJobs(info, contexts, num_reserved)
        self._contexts = contexts
        self._limits = limits

    def snapshot(self, context_id: int) -> Journal:
        return Journal.of(self._contexts.get_idle(context_id))

    def open(self, owner: Owner, journal: Journal) -> int:
        """A context of the journal's content, whose KV is still to be found or computed."""
        self._limits.check_tokens(journal.tokens)
        self._limits.check_length(journal.num_tokens)
        self._limits.check_layout(journal.layout)
        context = self._contexts.create(owner)
        journal.write_into(context)
        return context.id

    def store_pages(self, context_id: int, path: str, notify: Callable[[], None]) -> PageJob:
        """Writes the whole pages of a context to a file, as far as they have names by content."""
        context = self._contexts.get_idle(context_id)
        num_whole = context.num_plain // self._contexts.page_size
        job = PageJob("store", context, path, min(num_whole, len(context.pages)), notify)
        self.jobs.add(job)
        return job

    def load_pages(self, context_id: int, path: str, notify: Callable[[], None]) -> PageJob:
        """Reads pages of such a context, so that its requests find them in the cache."""
        context = self._contexts.get_idle(context_id)
        # The last token is computed again anyway, and so is its page.
        num_whole = max(0, len(context.journal) - 1) // self._contexts.page_size
        num_whole = min(num_whole, context.num_plain // self._contexts.page_size)
        job = PageJob("load", context, path, num_whole, notify)
        self.jobs.add(job)
        return job
