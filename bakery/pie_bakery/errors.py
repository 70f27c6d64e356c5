"""What can go wrong for an author, each with the exit code of the command."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class BakeryError(Exception):
    """Something the author can act on; `exit_code` is the command's."""

    exit_code: ClassVar[int] = 1


class AuthorError(BakeryError):
    """A problem in the author's own file, at a line when it has one."""

    def __init__(self, message: str, path: Path | str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = Path(path)
        self.line = line

    def __str__(self) -> str:
        place = self.path
        if place.is_absolute() and place.is_relative_to(Path.cwd()):
            place = place.relative_to(Path.cwd())
        line = "" if self.line is None else f":{self.line}"
        return f"{place}{line}: {self.message}"


class UsageError(BakeryError):
    exit_code = 64


class ToolMissing(BakeryError):
    """A program that the build needs is not installed; the message holds the install command."""

    exit_code = 69
