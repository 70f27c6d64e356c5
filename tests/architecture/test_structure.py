"""Rules about the tree that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pie_daemon", "backend/pie_backend", "bakery/pie_bakery", "sdk/python/pie_client")
HEAVY = {"torch", "hydra", "omegaconf", "wasmtime", "zmq", "transformers", "tokenizers"}


def modules() -> list[Path]:
    return sorted(
        path.relative_to(ROOT)
        for package in (*PACKAGES, "sdk/python/inferlet")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    )


def test_every_module_has_its_line_in_the_architecture_page() -> None:
    """A newcomer finds each file there, and nothing that is gone."""
    page = (ROOT / "docs/architecture.md").read_text()
    named = {Path(name) for name in re.findall(r"^- `([\w/.-]+\.py)`: ", page, re.MULTILINE)}

    assert set(modules()) == named


def test_tasks_are_created_in_one_place() -> None:
    """A task that nobody watches fails in silence."""
    found = [path for path in modules() if ".create_task(" in (ROOT / path).read_text()]

    allowed = {Path("pie_daemon/tasks.py")}
    assert {p for p in found if p.parts[0] == "pie_daemon"} <= allowed


@pytest.mark.parametrize(
    "module", ["pie_daemon.cli", "pie_daemon.config", "pie_client", "pie_backend", "inferlet"]
)
def test_importing_a_front_door_is_light(module: str) -> None:
    """None of the heavy libraries is loaded before it is needed."""
    code = f"import sys, {module}; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "" == done.stdout.strip()


def test_no_source_file_outgrows_a_readers_patience() -> None:
    """Five hundred lines is the hard end; the aim is three hundred."""
    long = {str(p): n for p in modules() if (n := (ROOT / p).read_text().count("\n")) > 500}

    assert {} == long


def test_the_version_is_the_same_everywhere() -> None:
    """Four distributions, one version."""
    found = {
        match[1]
        for path in ("", "backend", "bakery", "sdk/python")
        for match in [
            re.search(r'^version = "(.+)"', (ROOT / path / "pyproject.toml").read_text(), re.M)
        ]
        if match
    }
    import pie_daemon

    assert {pie_daemon.__version__} == found
