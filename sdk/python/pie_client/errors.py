"""What a client can be told. `code` is stable; the message is for people."""

from __future__ import annotations

from typing import Any


class PieError(Exception):
    """The daemon, or the client library itself, refused; `code` says why."""

    def __init__(self, code: str, message: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail or {}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class NotRunning(PieError):
    """No daemon answers at the endpoint."""

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__("closed", f"no Pie daemon answers at {endpoint}: {reason}")
        self.endpoint = endpoint


class VersionMismatch(PieError):
    """The daemon speaks none of the protocol versions that this client speaks."""


class ProgramError(PieError):
    """The program ended without a result; `status` is that of its outcome."""

    def __init__(self, status: str, code: str, message: str) -> None:
        super().__init__(code, message)
        self.status = status


class LinkLost(Exception):
    """The connection ended before the answer; inside this package only."""
