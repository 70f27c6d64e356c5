"""The command starts fast, because nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "hydra", "omegaconf", "wasmtime", "zmq", "structlog", "watchdog", "rich")


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys, json; print(json.dumps(list(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr))


@pytest.mark.parametrize("module", ["pie_daemon.cli", "pie_daemon.cli.app"])
def test_import_is_light(module: str) -> None:
    """Neither the package nor the definition of its commands pulls in what commands need."""
    assert set() == modules_after(f"import {module}") & set(HEAVY)


def test_version_is_light() -> None:
    """A command that only reads metadata stays so."""
    code = (
        "import sys, contextlib\nsys.argv = ['pie', 'version']\n"
        "from pie_daemon.cli import main\n"
        "with contextlib.suppress(SystemExit): main()"
    )

    assert set() == modules_after(code) & set(HEAVY)


def test_import_is_quick() -> None:
    """Best of three under the limit that a person does not notice."""
    code = (
        "import time; start = time.perf_counter(); import pie_daemon.cli.app; "
        "print(time.perf_counter() - start)"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(3)
    ]

    assert min(runs) < 0.3
