"""What goes to the screen. Programs are guests: their text cannot steer the terminal."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

if TYPE_CHECKING:
    from rich.status import Status

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # cursor, colours
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # titles, clipboard, device strings
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
# Also what is left of a sequence that was cut in two, and what reverses the order of letters.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]"
)


def clean(text: str) -> str:
    """The text without anything a terminal would obey; line breaks and tabs stay."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text.replace("\r\n", "\n")))


def write(text: str, stream: TextIO | None = None) -> None:
    """Text of a program: cleaned on a terminal, unchanged into a file or a pipe."""
    stream = stream or sys.stdout
    stream.write(clean(text) if stream.isatty() else text.encode(errors="replace").decode())
    stream.flush()


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    plain = msgspec.to_builtins(value)
    sys.stdout.write(
        json.dumps(plain, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
    )
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on a terminal, and the same words separated by tabs elsewhere."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            sys.stdout.write("\t".join(_one_line(cell) for cell in row) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # What is copied from the screen, ids and names, stays in one piece.
        table.add_column(column, no_wrap=column == columns[0])
    for row in rows:
        table.add_row(*(Text(_one_line(cell)) for cell in row))
    Console().print(table)


def _one_line(text: str) -> str:
    return clean(text).replace("\n", " ").replace("\t", " ")


class Progress:
    """A word about what is being waited for; silent where nobody watches."""

    def __init__(self) -> None:
        self._status: Status | None = None

    def say(self, text: str) -> None:
        if not sys.stderr.isatty():
            return
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        self._status.update(clean(text))

    def clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    shown = Progress()
    try:
        yield shown
    finally:
        shown.clear()
