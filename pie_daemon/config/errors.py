"""What is wrong with a configuration, said so that it can be mended without reading code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pie_daemon.errors import PieError

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where it was written."""

    where: str
    """`file:line`, `file`, or `command line`."""
    key: str
    """Dotted name; empty when the text could not be read that far."""
    reason: str

    def __str__(self) -> str:
        subject = f"{self.key}: " if self.key else ""
        return f"{self.where}: {subject}{self.reason}"


class ConfigError(PieError):
    """The configuration cannot be used; every problem that was found is listed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("invalid-argument", "\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return self.message
