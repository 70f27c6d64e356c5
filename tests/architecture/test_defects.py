"""The page of defects names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_defect_names_its_test() -> None:
    """Renaming a test renames it on the page as well."""
    rows = re.findall(r"^\| (?!defect|-)(.+) \|$", (ROOT / "docs/defects.md").read_text(), re.M)
    missing = [row for row in rows if not NAMED.search(row)]
    for path, name in NAMED.findall("\n".join(rows)):
        file = ROOT / path
        if not file.exists() or f"def {name}(" not in file.read_text():
            missing.append(f"{path}::{name}")

    assert len(rows) > 20
    assert [] == missing
