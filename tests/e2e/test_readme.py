"""The README is executed: each command of each `console` block, in order, against one daemon."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pie_bakery.build import build
from pie_client import Client
from support import guests
from support.daemon import ready
from support.guests import REPOSITORY
from support.programs import built
from support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

README = (REPOSITORY / "README.md").read_text()
INFERLETS = ("text-completion", "chat", "echo")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Command:
    line: str
    expected: str


def commands() -> list[Command]:
    found: list[Command] = []
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:], ""))
            elif line:
                found[-1].expected += line + "\n"
    return found


@dataclass
class Stranger:
    """Somebody who follows the README in a fresh checkout, with a home of his own."""

    home: Path
    checkout: Path
    environment: dict[str, str]

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.home}/.local/state/pie/run/pie.sock"

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def programs_ready(self) -> bool:
        with Client.connect(self.endpoint) as client:
            return set(INFERLETS) <= ready(client)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    root = Path(tempfile.mkdtemp(prefix="pie-"))
    checkout, state = root / "checkout", root / ".local/state/pie"
    checkout.mkdir()
    state.mkdir(parents=True)
    for entry in REPOSITORY.iterdir():
        if entry.name not in (".git", ".cache", "build"):
            (checkout / entry.name).symlink_to(entry)
    for name in INFERLETS:
        target = checkout / f"build/inferlets/{name}.wasm"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(built(name), target)
    (guests.CACHE / "compiled").mkdir(parents=True, exist_ok=True)
    (state / "compiled").symlink_to(guests.CACHE / "compiled")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIE_", "XDG_"))}
    environment["HOME"] = str(root)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["VENV"] = str(Path(sys.executable).parents[1])
    yield Stranger(root, checkout, environment)
    shutil.rmtree(root, ignore_errors=True)


def test_every_command_of_the_readme_works_as_shown(stranger: Stranger) -> None:
    """Output is compared where the README shows any; `...` stands for anything."""
    daemon: subprocess.Popen[bytes] | None = None
    failures: list[str] = []
    try:
        for command in commands():
            if command.line.startswith("make "):
                # CI runs them; here they would install over the environment of the tests.
                assert stranger.shell(command.line.replace("make", "make -n")).returncode == 0
            elif command.line == "pie serve":
                daemon = _serve(stranger)
            else:
                failures += _failures(stranger, command)
                if command.line.startswith("cp "):
                    until(stranger.programs_ready, 200)
    finally:
        if daemon is not None:
            daemon.send_signal(signal.SIGINT)
            daemon.wait(60)
    assert not failures, "\n".join(failures)


def _serve(stranger: Stranger) -> subprocess.Popen[bytes]:
    log = (stranger.home / "log").open("wb")
    process = subprocess.Popen(
        ["pie", "serve"], cwd=stranger.checkout, env=stranger.environment, stdout=log, stderr=log
    )
    log.close()
    try:
        Client.connect(stranger.endpoint, timeout_s=120, wait=True).close()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _failures(stranger: Stranger, command: Command) -> list[str]:
    done = stranger.shell(command.line)
    shown = done.stdout + done.stderr
    if done.returncode:
        return [f"$ {command.line}\nexit code {done.returncode}\n{shown}"]
    same = doctest.OutputChecker().check_output(command.expected, shown, FLAGS)
    if command.expected and not same:
        return [f"$ {command.line}\nshown in the README:\n{command.expected}really:\n{shown}"]
    return []


def test_the_inferlet_in_the_readme_builds_and_runs(tmp_path: Path, stranger: Stranger) -> None:
    """The Python block under `Write an inferlet` is a whole program."""
    source = re.search(r"^```python\n(from inferlet.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert source is not None
    (tmp_path / "pie.toml").write_text('[inferlet]\nname = "shown"\n')
    (tmp_path / "main.py").write_text(source[1])
    target = tmp_path / "shown.wasm"
    build(tmp_path, target)
    done = stranger.shell(f"pie run {target} --json -- --prompt '27 + 15 ='")

    assert 0 == done.returncode, done.stderr
    assert '"tokens"' in done.stdout


def test_the_client_in_the_readme_runs(stranger: Stranger) -> None:
    """The Python block under `Call it from Python`, against a daemon with that program."""
    source = re.search(r"^```python\n(from pie_client.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert source is not None
    folder = stranger.home / ".local/state/pie/inferlets"
    folder.mkdir()
    shutil.copy(built("text-completion"), folder / "text-completion.wasm")
    daemon = _serve(stranger)
    try:
        with Client.connect(stranger.endpoint) as client:
            until(lambda: "text-completion" in ready(client), 200)
        done = subprocess.run(
            [sys.executable, "-c", source[1]],
            env=stranger.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        assert done.stdout.strip()
    finally:
        daemon.send_signal(signal.SIGINT)
        daemon.wait(60)


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """Relative links name files of the repository."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)

    assert [] == [link for link in links if not (REPOSITORY / link).exists()]
