"""Inferlets in JavaScript, for benchmarks: QuickJS as a component. `bakery` builds Python only."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from pie_bakery import component
from pie_bakery.build import read_manifest
from support import guests

TOOL = "componentize-qjs@0.4.5"
"""From npm; there is nothing else to install."""
_WIT = guests.REPOSITORY / "sdk/wit/inferlet.wit"


class NoTool(Exception):
    """There is no npx, or it cannot get the tool; says why."""


def built(folder: Path) -> Path:
    """The component of `folder/main.js` with its `pie.toml`. Raises: NoTool."""
    sources = [folder / "main.js", folder / "pie.toml", _WIT]
    digest = hashlib.sha256(TOOL.encode() + b"".join(one.read_bytes() for one in sources))
    target = guests.CACHE / f"{digest.hexdigest()[:32]}.wasm"
    return guests.once(target, lambda partial: _build(folder, partial))


def _build(folder: Path, target: Path) -> None:
    if shutil.which("npx") is None:
        raise NoTool("npx is not installed")
    command = ["npx", "--yes", TOOL, "--sync", "--wit", str(_WIT), "--world", "inferlet"]
    command += ["--js", str(folder / "main.js"), "--output", str(target)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise NoTool(f"{TOOL}: {(done.stderr or done.stdout).strip()}")
    manifest, _ = read_manifest(folder)
    target.write_bytes(
        component.with_custom_section(target.read_bytes(), component.MANIFEST, manifest)
    )
