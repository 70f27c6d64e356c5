"""The error that travels: to inferlets as `{code, message}`, to clients with the same code."""

from __future__ import annotations

from typing import Literal, get_args

Code = Literal[
    "invalid-argument",
    "not-found",
    "already-exists",
    "denied",
    "busy",
    "timeout",
    "quota",
    "exhausted",
    "unsupported",
    "cancelled",
    "interrupted",
    "closed",
    "internal",
]
CODES: frozenset[str] = frozenset(get_args(Code))


class PieError(Exception):
    """A refusal with a stable code and a sentence that says what to do about it."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
