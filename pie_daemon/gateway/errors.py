"""Errors in OpenAI's shape, with the status codes on which its clients decide what to do."""

from __future__ import annotations

from typing import Any

from pie_daemon.errors import PieError

_STATUS = {
    "invalid-argument": 400,
    "unsupported": 400,
    "exhausted": 400,
    "denied": 403,
    "not-found": 404,
    "already-exists": 409,
    "busy": 429,
    "quota": 429,
    "cancelled": 503,
    "closed": 503,
    "interrupted": 503,
    "timeout": 504,
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_RETRY_AFTER_S = 1


class ApiError(Exception):
    """What a request is answered with instead of a completion.

    `again`: whether the same request may succeed later; clients of OpenAI obey it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        again: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.again = again

    @property
    def type(self) -> str:
        return _TYPES.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        headers = {"x-should-retry": "true" if self.again else "false"}
        if self.again:
            headers["retry-after"] = str(_RETRY_AFTER_S)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def invalid(message: str, param: str | None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def refused(error: PieError) -> ApiError:
    """What the runtime does not start."""
    again = error.code in ("busy", "quota", "closed")
    return ApiError(_STATUS.get(error.code, 500), error.message, code=error.code, again=again)


def failed(code: str | None, message: str | None) -> ApiError:
    """What a program that has ended badly leaves to say; running it again would rarely help."""
    text = message or "the program ended without an answer"
    status = _STATUS.get(code or "", 500)
    return ApiError(status, text, code=code, again=code in ("busy", "interrupted"))
