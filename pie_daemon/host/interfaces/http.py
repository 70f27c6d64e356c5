"""WIT interface `http`: requests to the hosts that a program has been granted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.context import HostContext
from pie_daemon.host.interfaces.jobs import HeldJob, get, subscribe
from pie_daemon.host.outside import WebRequest, WebResponse


class Exchange(HeldJob[WebResponse]):
    """A request and, later, its response."""


def fetch(host: HostContext, request: Any) -> Exchange:
    asked = WebRequest(
        method=request.method,
        url=request.url,
        headers=request.headers,
        body=request.body,
        timeout_s=request.timeout_ms / 1000 if request.timeout_ms else None,
    )
    return Exchange(host.web.fetch(asked, host.mailbox.wake))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "[method]exchange.subscribe": subscribe,
    "[method]exchange.get": get,
    "fetch": fetch,
}
