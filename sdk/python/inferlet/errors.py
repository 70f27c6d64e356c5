"""One exception class per error code of the host; `docs/errors.md` says what each one means."""

from __future__ import annotations

from typing import ClassVar


class PieError(Exception):
    """What the host refused, or what a program refuses: a stable code and a sentence."""

    default_code: ClassVar[str] = "internal"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


class InvalidArgument(PieError):
    default_code = "invalid-argument"


class NotFound(PieError):
    default_code = "not-found"


class AlreadyExists(PieError):
    default_code = "already-exists"


class Denied(PieError):
    default_code = "denied"


class Busy(PieError):
    default_code = "busy"


class Timeout(PieError):
    default_code = "timeout"


class Quota(PieError):
    default_code = "quota"


class Exhausted(PieError):
    default_code = "exhausted"


class Unsupported(PieError):
    default_code = "unsupported"


class Cancelled(PieError):
    default_code = "cancelled"


class Interrupted(PieError):
    default_code = "interrupted"


class Closed(PieError):
    default_code = "closed"


class Internal(PieError):
    default_code = "internal"


_CLASSES: dict[str, type[PieError]] = {
    cls.default_code: cls
    for cls in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        Denied,
        Busy,
        Timeout,
        Quota,
        Exhausted,
        Unsupported,
        Cancelled,
        Interrupted,
        Closed,
        Internal,
    )
}


def error_for(code: str, message: str) -> PieError:
    """The exception of `code`; a code newer than this SDK becomes a plain `PieError`."""
    return _CLASSES.get(code, PieError)(message, code)
