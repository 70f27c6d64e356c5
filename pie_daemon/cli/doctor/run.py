"""The list of checks, and their report."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pie_daemon import __version__
from pie_daemon.cli import exits
from pie_daemon.cli.doctor import places, service, software
from pie_daemon.cli.doctor.check import SCHEMA, Check, Report, run_all
from pie_daemon.cli.terminal import clean, print_json

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL", "skip": "skip"}


def checks(overrides: Sequence[str]) -> list[Check]:
    setup = service.Setup(overrides)
    return [
        Check("python", software.python),
        Check("torch", software.torch, timeout_s=60.0),
        Check("kernels", software.kernels, timeout_s=180.0),
        Check("gpu", setup.gpu, timeout_s=60.0),
        Check("wasmtime", software.wasmtime),
        Check("hydra", software.hydra),
        Check("bakery", software.bakery),
        Check("configuration", setup.configuration),
        Check("model", setup.models),
        Check("state_folder", places.state_folder),
        Check("runtime_folder", places.runtime_folder),
        Check("config_folder", places.config_folder),
        Check("watch_folder", setup.watch_folder),
        Check("mcp_servers", setup.mcp_servers),
        Check("socket_path", places.socket_path),
        Check("lock", places.lock),
        Check("gateway", setup.gateway),
        Check("daemon", service.daemon),
    ]


def examine(overrides: Sequence[str], *, as_json: bool) -> int:
    """Warnings do not fail: only what cannot work does."""
    reports = run_all(checks(overrides))
    if as_json:
        print_json({"schema": SCHEMA, "version": __version__, "checks": reports})
    else:
        for report in reports:
            sys.stdout.write(clean(_text(report)) + "\n")
    failed = any(report.status == "fail" for report in reports)
    return exits.FAILED if failed else exits.OK


def _text(report: Report) -> str:
    lines = [f"{_MARKS[report.status]}  {report.id}: {report.summary}"]
    if report.status in ("warn", "fail"):
        lines += [f"      {report.why}", f"      -> {report.fix}"]
    return "\n".join(lines)
