"""One table of all rows, for the terminal and for docs/benchmarks/gpu."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.gpu.rows import Row
from benchmarks.machine import this_machine

PAGES = Path("docs/benchmarks/gpu")
_COLUMNS = ["stage", "what", "", "found", "s"]


def table(rows: Sequence[Row]) -> str:
    """Markdown, which a terminal shows as well."""
    lines = [_COLUMNS, ["---"] * len(_COLUMNS), *(row.cells() for row in rows)]
    body = "\n".join("| " + " | ".join(_inline(cell) for cell in line) + " |" for line in lines)
    failed = sum(row.ok is False for row in rows)
    return f"{body}\n\n{len(rows)} rows, {failed} failed"


def publish(rows: Sequence[Row], device: str) -> Path:
    """The page, beside all rows as JSON; a rehearsal keeps to a name of its own."""
    names = sorted({row.device for row in rows})
    page = PAGES / ("rehearsal.md" if device == "cpu" else "README.md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(
        f"# What `make gpu-check` found\n\n*{datetime.now(UTC):%Y-%m-%d}, {', '.join(names)}; "
        f"{this_machine().line}.*\n\n{table(rows)}\n"
    )
    page.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    return page


def _inline(cell: str) -> str:
    return " ".join(cell.replace("|", "/").split())
