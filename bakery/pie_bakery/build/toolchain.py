"""Finds and runs componentize-py, and turns its failures into sentences."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from pie_bakery.errors import BakeryError, ToolMissing

WORLD = "inferlet"
_RUN = "import sys; from componentize_py import script; sys.exit(script())"
_NOISE = re.compile(r"\n+Caused by:\n.*|\n+Stack backtrace:\n.*", re.DOTALL)


class BuildFailed(BakeryError):
    """componentize-py refused; `output` is what the guest's Python printed before."""

    def __init__(self, output: str) -> None:
        super().__init__(f"componentize-py could not build the component:\n{output}")
        self.output = output


def sdk_folder() -> Path:
    """Where the guest package `inferlet` is installed; the WIT lies in its folder `wit`."""
    found = importlib.util.find_spec("inferlet")
    if found is None or found.origin is None:
        raise ToolMissing("the guest package `inferlet` is not installed: pip install pie-sdk")
    return Path(found.origin).parent


def componentize(paths: list[Path], app: str, out: Path, empty_venv: Path) -> None:
    """Runs componentize-py on module `app`; `paths` become /0, /1, ... inside the guest."""
    if importlib.util.find_spec("componentize_py") is None:
        raise ToolMissing("componentize-py is not installed: pip install componentize-py")
    command = [sys.executable, "-c", _RUN, "-q", "-d", str(sdk_folder() / "wit"), "-w", WORLD]
    command += ["componentize", app, "-o", str(out)]
    for path in paths:
        command += ["-p", str(path)]
    # Without this the site-packages around bakery itself would be part of the guest's world.
    environment = {**os.environ, "VIRTUAL_ENV": str(empty_venv), "RUST_BACKTRACE": "0"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise BuildFailed(_NOISE.sub("", done.stderr + done.stdout).strip())
