"""Starting, refusing to start, stopping, and coming back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import DaemonProcess, ready, scheduler_of
from support.programs import built
from support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def own() -> Iterator[DaemonProcess]:
    """A daemon of this test alone, on the dummy backend."""
    daemon = DaemonProcess("backend=dummy", "runtime.drain_s=0.5")
    daemon.start()
    yield daemon
    daemon.remove()


def pie(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pie_daemon", *arguments],
        env=daemon.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_second_daemon_is_refused_and_the_first_still_answers(own: DaemonProcess) -> None:
    """Exit code 69, naming the process that holds the lock."""
    second = pie(own, "serve", "backend=dummy")

    assert 69 == second.returncode
    assert str(own.pid) in second.stderr
    with own.connect() as client:
        client.ping()


def test_an_endpoint_that_cannot_be_is_a_mistake_of_the_configuration() -> None:
    """Exit code 78 and the way out, although everything before the listener had started."""
    daemon = DaemonProcess()
    try:
        done = pie(daemon, "serve", "backend=dummy", "listener.endpoints=['ipc://relative']")
    finally:
        daemon.remove()

    assert 78 == done.returncode, done.stderr
    assert "not absolute" in done.stderr


def test_a_stop_ends_programs_with_a_reason_and_exits_cleanly(own: DaemonProcess) -> None:
    """The worker process goes with the daemon."""
    own.install("behave")
    client = own.connect()
    process = client.launch("behave", {"do": "receive"}, detached=True)
    next(iter(process.events()))

    assert 0 == own.stop(), own.log.read_text()
    client.close()


def test_uploads_survive_a_daemon_that_is_killed(own: DaemonProcess) -> None:
    """What was accepted is there again, under its name."""
    with own.connect() as client:
        client.upload(built("echo"), "mine")
        assert [1] == client.launch("mine", [1]).result()
    own.kill()
    own.start()
    with own.connect() as client:
        until(lambda: "mine" in ready(client))
        assert [2] == client.launch("mine", [2]).result()


def test_durable_contexts_survive_a_daemon_that_is_killed(own: DaemonProcess) -> None:
    """What is generated after them is what would have been without the kill, and their KV is read
    instead of computed."""
    own.install("resume")
    with own.connect() as client:
        for name in ("as it was", "interrupted"):
            first = client.launch("resume", {"name": name, "text": "Once upon " * 20}).result()
        expected = client.launch("resume", {"name": "as it was", "text": "a time"}).result()
    again = {"name": "interrupted", "text": "a time"}
    own.kill()
    own.start()
    with own.connect() as client:
        until(lambda: "resume" in ready(client))
        assert expected == client.launch("resume", again).result()
        assert first["length"] - 16 < scheduler_of(client)["found_tokens"]
    assert expected["length"] > first["length"] > 32


def test_the_command_line_runs_a_file_on_the_daemon(own: DaemonProcess, tmp_path: Path) -> None:
    """`pie run PATH` uploads it first; arguments behind `--` become the input."""
    path = tmp_path / "echo.wasm"
    path.write_bytes(built("echo").read_bytes())
    done = pie(own, "run", str(path), "--daemon", "--json", "--", "--max-tokens", "3", "--flag")

    assert 0 == done.returncode, done.stderr
    assert '"max_tokens": 3' in done.stdout.replace('":3', '": 3')
