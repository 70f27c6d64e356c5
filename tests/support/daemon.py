"""A real daemon: `pie serve` in a process of its own, with folders of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pie_client import Client, NotRunning
from support import guests
from support.programs import built
from support.waiting import until

_START_S = 120.0


class DaemonProcess:
    """`start` returns once it answers. The compile cache is shared by all tests."""

    def __init__(self, *overrides: str) -> None:
        # Short, since the path of a socket has to be.
        self.root = Path(tempfile.mkdtemp(prefix="pie-"))
        self.folder = self.root / "state" / "inferlets"
        self.folder.mkdir(parents=True)
        compiled = guests.CACHE / "compiled"
        compiled.mkdir(parents=True, exist_ok=True)
        (self.root / "state" / "compiled").symlink_to(compiled)
        self.environment = {
            **os.environ,
            "PIE_STATE_DIR": str(self.root / "state"),
            "PIE_RUNTIME_DIR": str(self.root / "run"),
            "PIE_CONFIG_DIR": str(self.root / "config"),
        }
        self.endpoint = f"ipc://{self.root}/run/pie.sock"
        self.log = self.root / "log"
        self._overrides = overrides
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> DaemonProcess:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pie_daemon", "serve", *self._overrides],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        until(self._answers, _START_S)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            with self.connect():
                return True
        except NotRunning:
            return False

    def connect(self) -> Client:
        return Client.connect(self.endpoint, timeout_s=2)

    def install(self, *names: str) -> None:
        """Copies inferlets into the watched folder and waits until they are live."""
        for name in names:
            self.put(built(name), name)
        self.wait_for(*names)

    def put(self, component: Path, name: str) -> None:
        shutil.copy(component, self.folder / f"{name}.wasm")

    def wait_for(self, *names: str) -> None:
        with self.connect() as client:
            until(lambda: set(names) <= ready(client))

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """By SIGTERM; the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.root, ignore_errors=True)


def ready(client: Client) -> set[str]:
    return {program.name for program in client.programs() if program.state == "ready"}


def scheduler_of(client: Client, model: str = "crumb") -> dict[str, object]:
    """The scheduler's own numbers, from the status request."""
    numbers: dict[str, object] = client.status().detail["models"][model]["scheduler"]
    return numbers


def is_empty(numbers: dict[str, object]) -> bool:
    """Nobody is there, and the pages of what was in flight are back as well."""
    return numbers["owners"] == 0 and numbers["num_pages"] == numbers["free_pages"]
