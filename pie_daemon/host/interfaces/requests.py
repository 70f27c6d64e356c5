"""Requests of the scheduler as programs hold them, in several WIT interfaces."""

from __future__ import annotations

from pie_daemon.host.context import HostContext
from pie_daemon.host.interfaces.contexts import Context
from pie_daemon.host.waitable import Waitable


class HeldRequest:
    """It holds its context: dropping the context's handle is safe."""

    def __init__(self, host: HostContext, context: Context, request: int) -> None:
        self.context = context
        self.request = request
        self._table = host.table
        self._table.hold(context)

    @property
    def ready(self) -> bool:
        return self.context.model.scheduler.ready(self.request)

    def close(self) -> None:
        self.context.model.scheduler.drop_request(self.request)
        self._table.release(self.context)


def subscribe(host: HostContext, held: HeldRequest) -> Waitable:
    return Waitable(lambda: held.ready)
