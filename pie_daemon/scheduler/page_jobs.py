"""Pages of saved contexts on their way to files and back, a few at a time between batches.

A stored page is one that a context holds anyway. A loaded one becomes a cached page, known by its
content: whoever begins with it finds it, and whoever needs its place takes it, as with any other.
So nothing waits for a load, and a load never takes what a running request was promised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pie_backend.batch import BackendInfo, Batch, BatchResult, PageFile
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.contexts import ContextTable

_CHUNK_BYTES = 1 << 20
"""So much is read or written between two batches: about a millisecond."""
_MAX_CHUNK_PAGES = 64


@dataclass(slots=True, eq=False)
class PageJob:
    """`notify` is called once it is done, or as far as it went: a part is of use, too."""

    kind: Literal["store", "load"]
    context: Context
    path: str
    end: int
    """Pages [0, end) of the context are to be moved."""
    notify: Callable[[], None]
    next: int = 0
    done: bool = False
    cancelled: bool = False
    """Whoever asked for it has gone."""
    num_moved: int = 0
    failure: str | None = None
    held: list[int] = field(default_factory=list)
    """Loaded ones; they are let go together, so that the first of them is evicted last."""


class PageJobs:
    """Pure; one batch of it is in flight at a time, and none of the scheduler's."""

    def __init__(
        self, info: BackendInfo, contexts: ContextTable, num_reserved: Callable[[], int]
    ) -> None:
        self._contexts = contexts
        self._num_reserved = num_reserved
        self._max_pages = _num_pages_in_chunk(info)
        self._jobs: deque[PageJob] = deque()
        self._moving: list[int] = []
        self._keys: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, job: PageJob) -> None:
        self._jobs.append(job)

    @property
    def held(self) -> list[int]:
        return [page for job in self._jobs for page in job.held]

    def depart(self) -> tuple[Batch | None, list[PageJob]]:
        """What to compute next for the first job; and the jobs that are done now."""
        done: list[PageJob] = []
        while self._jobs:
            job = self._jobs[0]
            file = None if job.cancelled else self._next(job)
            if file is not None:
                store, load = (file, None) if job.kind == "store" else (None, file)
                # Pages that make room for loaded ones are saved before they are overwritten.
                evict, restore = self._contexts.host.depart()
                batch = Batch(0, [], evict=evict, restore=restore, store=store, load=load)
                return batch, done
            done.append(self._finish())
        return None, done

    def land(self, result: BatchResult) -> list[PageJob]:
        """Takes in what `depart` sent off; the jobs that are done by that."""
        job, num_pages = self._jobs[0], len(self._moving)
        job.failure = result.file_failure
        if job.kind == "load":
            self._take_in(job)
        self._moving = []
        if job.failure is not None:
            return [self._finish()]
        job.next += num_pages
        job.num_moved += num_pages
        return []

    def fail(self, message: str) -> list[PageJob]:
        """The backend is gone."""
        done = []
        while self._jobs:
            self._jobs[0].failure = message
            done.append(self._finish())
        return done

    def lose(self, info: BackendInfo, cause: str) -> list[PageJob]:
        """The backend is gone with all its pages; the jobs that are done by that.

        What was to be stored is lost, but for the part that is in the file already. Loads begin
        again, for the next backend; one that was under way when the backend died does not, since it
        may be what killed it.
        """
        self._max_pages = _num_pages_in_chunk(info)
        done = [job for job in self._jobs if job.kind == "store"]
        if self._moving:
            first, self._moving = self._jobs[0], []
            first.failure = cause
            done = [first, *(job for job in done if job is not first)]
        self._jobs = deque(job for job in self._jobs if job not in done)
        for job in (*done, *self._jobs):
            job.held = []
        for job in done:
            job.done = True
        for job in self._jobs:
            job.next = job.num_moved = 0
        return done

    def _next(self, job: PageJob) -> PageFile | None:
        pages = self._to_store(job) if job.kind == "store" else self._to_load(job)
        self._moving = pages
        return PageFile(job.path, pages, job.next) if pages else None

    def _to_store(self, job: PageJob) -> list[int]:
        """Whole ones, as far as they are there: pages may have been given up meanwhile."""
        num_tokens = min(job.context.num_computed, job.context.num_plain)
        num_whole = min(job.end, num_tokens // self._contexts.page_size)
        return job.context.pages[job.next : min(num_whole, job.next + self._max_pages)]

    def _to_load(self, job: PageJob) -> list[int]:
        """Free ones, for what is not in the cache anyway."""
        pool = self._contexts.pool
        self._keys = []
        num_free = max(0, pool.num_free - self._num_reserved())
        num_most = min(num_free, self._max_pages)
        num_plain = job.context.num_plain // self._contexts.page_size
        for index in range(job.next, min(job.end, num_plain)):
            if len(self._keys) == num_most:
                break
            key = self._contexts.key_of(job.context, index)
            if pool.find(key) is None:
                self._keys.append(key)
            elif self._keys:
                break
            else:
                job.next = index + 1
        pages = [pool.allocate() for _ in self._keys]
        job.held += pages
        return pages

    def _take_in(self, job: PageJob) -> None:
        if job.failure is None:
            for page, key in zip(self._moving, self._keys, strict=True):
                if self._contexts.pool.find(key) is None:
                    self._contexts.pool.publish(page, key)

    def _finish(self) -> PageJob:
        job = self._jobs.popleft()
        job.done = True
        self._contexts.pool.free(reversed(job.held))
        job.held = []
        return job


def _num_pages_in_chunk(info: BackendInfo) -> int:
    return max(1, min(_MAX_CHUNK_PAGES, _CHUNK_BYTES // max(1, info.page_bytes)))
