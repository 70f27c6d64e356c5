"""`pie version`: read from the installed packages, without importing one of them."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from pie_daemon import __version__
from pie_daemon.cli import exits
from pie_daemon.cli.terminal import print_json

_PACKAGES = ("pie-backend", "pie-bakery", "pie-sdk", "wasmtime", "torch", "pyzmq", "hydra-core")


def show_versions(*, as_json: bool) -> int:
    versions = {"pie": __version__, "python": platform.python_version()}
    versions |= {name: installed(name) or "not installed" for name in _PACKAGES}
    if as_json:
        print_json(versions)
    else:
        for name, number in versions.items():
            sys.stdout.write(f"{name} {number}\n")
    return exits.OK


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
