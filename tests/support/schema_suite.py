"""The official JSON-Schema-Test-Suite, out of the source distribution of `jsonschema` on PyPI.

Wheels leave it out, so the sdist of the very version that requirements-dev.txt pins is fetched once
by pip, checked, and kept in `.cache`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.guests import REPOSITORY, once

VERSION = "4.26.0"
SHA256 = "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326"
CACHE = REPOSITORY / ".cache" / "test-suites"


@dataclass(frozen=True)
class Case:
    keyword: str
    """The file that it is in."""
    description: str
    schema: Any
    tests: list[dict[str, Any]]
    """Each with `description`, `data` and `valid`."""

    @property
    def is_satisfied(self) -> bool:
        """The suite has an instance that is valid."""
        return any(test["valid"] for test in self.tests)


def load(draft: str) -> list[Case]:
    """The required part of the suite; optional formats and numbers are left out."""
    return [
        Case(Path(name).stem, case["description"], case["schema"], case["tests"])
        for name, text in _files(f"jsonschema-{VERSION}/json/tests/{draft}/")
        for case in json.loads(text)
    ]


def _files(folder: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(_sdist()) as archive:
        names = [one.name for one in archive if one.name.startswith(folder)]
        for name in sorted(name for name in names if "/" not in name.removeprefix(folder)):
            file = archive.extractfile(name)
            assert file is not None
            yield name, file.read()


def _sdist() -> Path:
    assert importlib.metadata.version("jsonschema") == VERSION
    CACHE.mkdir(parents=True, exist_ok=True)
    return once(CACHE / f"jsonschema-{VERSION}.tar.gz", _download)


def _download(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder)
        wanted = ("--no-binary", "jsonschema", f"jsonschema=={VERSION}")
        subprocess.run([*pip, *wanted], check=True)
        data = (Path(folder) / f"jsonschema-{VERSION}.tar.gz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    target.write_bytes(data)
