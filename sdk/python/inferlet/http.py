"""Requests to hosts that this program has been granted.

`http` under `[grants]` in pie.toml names them; the operator has to allow them as well.
"""

from __future__ import annotations

import json as _json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferlet import _host
from inferlet._handle import Task
from inferlet._json import dumps
from inferlet.errors import PieError
from inferlet.events import Waitable, _milliseconds


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    """Names in lower case, in the order of the server."""
    content: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as UTF-8; bytes that are none become U+FFFD."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """Raises `ValueError` when the body is not JSON."""
        return _json.loads(self.content)

    def header(self, name: str) -> str | None:
        """The first one of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def raise_for_status(self) -> Response:
        if not self.ok:
            raise PieError(f"the server answered {self.status}: {self.text[:200]}", "program-error")
        return self


class Exchange(Task):
    """A request on its way; it ends with `response`, `close`, which hangs up, or the program."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self._response: Response | None = None

    def response(self) -> Response:
        """Waits for it."""
        if self._response is None:
            got = self._wait()
            headers = [(str(name), str(value)) for name, value in got.headers]
            self._response = Response(int(got.status), headers, bytes(got.body))
        return self._response

    def waitable(self) -> Waitable:
        """Ready once the response is there, or the request has failed; not after `response`."""
        return Waitable(self.handle.subscribe())


def start(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | str = b"",
    json: Any = None,
    timeout_s: float | None = None,
) -> Exchange:
    """Sends a request and goes on; several at a time, `events.wait_any` tells which has come.

    Args:
        body: Text is sent as UTF-8.
        json: Sent as the body, with its content type.
        timeout_s: At most what the operator allows, which is also the default.
    """
    fields = dict(headers or {})
    data = body.encode() if isinstance(body, str) else bytes(body)
    if json is not None:
        data = dumps(json).encode()
        if not any(name.lower() == "content-type" for name in fields):
            fields["content-type"] = "application/json"
    timeout_ms = 0 if timeout_s is None else max(1, _milliseconds(timeout_s))
    request = _host.http.Request(method.upper(), url, list(fields.items()), data, timeout_ms)
    return Exchange(_host.call(_host.http.fetch, request))


def fetch(url: str, *, method: str = "GET", **options: Any) -> Response:
    """Sends a request and waits for the response, whatever its status; options as in `start`."""
    return start(method, url, **options).response()


def get(url: str, **options: Any) -> Response:
    return fetch(url, **options)


def post(url: str, **options: Any) -> Response:
    return fetch(url, method="POST", **options)
