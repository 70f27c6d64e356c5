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


def test_a_daemon_without_its_endpoint_loads_no_web_server() -> None:
    """Nor does a run without a daemon, which boots one."""
    assert set() == modules_after("import pie_daemon.daemon") & {"starlette", "uvicorn"}


def test_the_commands_add_little_to_their_parser() -> None:
    """Besides typer itself only a handful of modules is read before a command is known."""
    added = modules_after("import pie_daemon.cli.app") - modules_after("import typer")

    assert len(added) < 40, sorted(added)
