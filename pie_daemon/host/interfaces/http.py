"""WIT interface `http`: requests to the hosts that a program has been granted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.context import HostContext
from pie_daemon.host.outside import Job, WebRequest, WebResponse
from pie_daemon.host.waitable import Waitable


class Exchange:
    """A request and, later, its response; dropping it ends it wherever it is."""

    def __init__(self, job: Job[WebResponse]) -> None:
        self.job = job

    def close(self) -> None:
        self.job.close()


def fetch(host: HostContext, request: Any) -> Exchange:
    asked = WebRequest(
        method=request.method,
        url=request.url,
        headers=request.headers,
        body=request.body,
        timeout_s=request.timeout_ms / 1000 if request.timeout_ms else None,
    )
    return Exchange(host.web.fetch(asked, host.mailbox.wake))


def subscribe(host: HostContext, exchange: Exchange) -> Waitable:
    return Waitable(lambda: exchange.job.done)


def get(host: HostContext, exchange: Exchange) -> WebResponse:
    host.mailbox.wait(lambda: exchange.job.done)
    return exchange.job.result()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "[method]exchange.subscribe": subscribe,
    "[method]exchange.get": get,
    "fetch": fetch,
}
