"""One asyncio loop in a thread of its own, on which programs' work outside goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from typing import Any, Generic, TypeVar

import structlog

from pie_daemon.errors import PieError

_STOP_S = 10.0
T = TypeVar("T")
_log = structlog.get_logger()


class Job(Generic[T]):
    """One coroutine, as the instance that asked for it sees it."""

    def __init__(self, future: Future[T], on_close: Callable[[], None]) -> None:
        self._future: Future[T] | None = future
        self._on_close = on_close

    @property
    def done(self) -> bool:
        return self._future is None or self._future.done()

    def result(self) -> T:
        """
        Raises:
            PieError: what went wrong, or `closed` when the loop was stopped underneath.
        """
        if self._future is None:
            raise PieError("closed", "this was closed")
        try:
            return self._future.result()
        except CancelledError:
            raise PieError("closed", "the daemon is shutting down") from None
        except PieError as error:
            raise PieError(error.code, error.message) from None

    def close(self) -> None:
        """Cancels it where it is, or gives up its result; twice is fine."""
        if self._future is not None:
            self._future.cancel()
            self._future = None
            self._on_close()


class Loop:
    """Thread-safe. Its thread starts with the first piece of work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._farewells: set[Future[object]] = set()

    def submit(
        self,
        work: Coroutine[Any, Any, T],
        notify: Callable[[], None] = lambda: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> Job[T]:
        """Starts it and returns at once.

        Args:
            notify: Called from the loop's thread once the work is done.
            on_close: Called by the job's first `close`, in the caller's thread.

        Raises:
            PieError: closed, while the daemon is shutting down.
        """
        try:
            loop = self._running()
        except PieError:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(_guarded(work), loop)
        future.add_done_callback(lambda _: notify())
        return Job(future, on_close)

    def discard(self, work: Coroutine[Any, Any, object]) -> None:
        """For work that tidies up: `close` waits for it, and nobody else does."""
        with suppress(PieError):
            loop = self._running()
            future = asyncio.run_coroutine_threadsafe(work, loop)
            self._farewells.add(future)
            future.add_done_callback(self._farewells.discard)
            return
        work.close()

    def finish(self, work: Coroutine[Any, Any, object], timeout_s: float) -> None:
        """Waits for it, unless nothing was ever started here."""
        if self._loop is None or self._closed:
            work.close()
            return
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            future.result(timeout_s)
        except TimeoutError:
            _log.warning("outside_work_unfinished", timeout_s=timeout_s)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise PieError("closed", "the daemon is shutting down")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="outside", daemon=True
                )
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """Cancels what still runs and ends the thread."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        wait(self._farewells.copy(), _STOP_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STOP_S)
        if thread.is_alive():
            _log.warning("outside_loop_still_busy")


async def _guarded(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except PieError:
        raise
    except Exception as error:
        _log.exception("outside_work_failed")
        raise PieError("internal", f"{type(error).__name__}: {error}") from error


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
