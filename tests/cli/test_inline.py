"""Runs without a daemon: one is booted for the command, and gone with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pie_daemon.cli.inline import copy_program
from pie_daemon.errors import PieError
from support import guests
from support.programs import built

ENGINE = ["--set", "backend=dummy"]


def test_missing_program_is_found_out_before_booting(tmp_path: Path) -> None:
    """The names there are, and the other way to name a program."""
    (tmp_path / "agent.wasm").write_bytes(b"x")

    with pytest.raises(PieError, match="there are: agent"):
        copy_program(tmp_path, "agnet", tmp_path / "target")
    with pytest.raises(PieError, match="no program is called"):
        copy_program(tmp_path, "../agent", tmp_path / "target")


def test_program_is_copied_with_its_manifest(tmp_path: Path) -> None:
    """Only the one program, with what overrides it, and with its old time."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    for name in ("agent.wasm", "agent.toml", "other.wasm"):
        (source / name).write_bytes(b"x")
    os.utime(source / "agent.wasm", (1, 1))

    copy_program(source, "agent", target)

    assert {"agent.wasm", "agent.toml"} == {path.name for path in target.iterdir()}
    assert 1 == (target / "agent.wasm").stat().st_mtime


@pytest.fixture
def environment(folders: Path) -> dict[str, str]:
    """Folders of its own, but for the cache of compiled programs."""
    compiled = guests.CACHE / "compiled"
    compiled.mkdir(parents=True, exist_ok=True)
    (folders / "state" / "inferlets").mkdir(parents=True)
    (folders / "state" / "compiled").symlink_to(compiled)
    return dict(os.environ)


def pie(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pie_daemon", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.slow
def test_path_and_name_run_without_a_daemon(environment: dict[str, str], folders: Path) -> None:
    """A file and a program of the folder print what they return; nothing stays behind."""
    shutil.copy(built("echo"), folders / "state" / "inferlets" / "again.wasm")
    for target in (str(built("echo")), "again"):
        out, err = pie(
            environment, "run", target, *ENGINE, "--json", "--", "--n", "5"
        ).communicate()
        assert out, err

        assert {"n": 5} == json.loads(out)["result"], err
        assert "" == err
    assert not (folders / "runtime").exists()


@pytest.mark.slow
def test_interrupt_ends_program_and_daemon(environment: dict[str, str]) -> None:
    """Ctrl-C in the middle of a program: exit code 130, one line, no traceback."""
    options = "--do sleep --seconds 1000000".split()
    target = str(built("behave"))
    settings = [*ENGINE, "--set", "limits.cpu_s=60"]
    process = pie(environment, "run", target, *settings, "--", *options)
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()

    assert (130, "pie: interrupted\n") == (process.returncode, err)
