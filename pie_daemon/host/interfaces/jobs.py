"""Work outside of the daemon as programs hold it, in several WIT interfaces."""

from __future__ import annotations

from typing import Generic, TypeVar

from pie_daemon.host.context import HostContext
from pie_daemon.host.outside import Job
from pie_daemon.host.waitable import Waitable

T = TypeVar("T")


class HeldJob(Generic[T]):
    """Dropping it ends the work wherever it is."""

    def __init__(self, job: Job[T]) -> None:
        self.job = job

    def close(self) -> None:
        self.job.close()


def subscribe(host: HostContext, held: HeldJob[T]) -> Waitable:
    return Waitable(lambda: held.job.done)


def get(host: HostContext, held: HeldJob[T]) -> T:
    """Blocks. Raises: PieError: what it ended with."""
    host.mailbox.wait(lambda: held.job.done)
    return held.job.result()
