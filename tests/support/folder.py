"""A program store that remembers, for tests of the watcher, and waiting without sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pie_daemon.errors import PieError


class FakeStore:
    """Accepts what starts with `good`; keeps what serves and everything it was told."""

    def __init__(self) -> None:
        self.serving: dict[str, bytes] = {}
        self.overrides: dict[str, bytes | None] = {}
        self.reasons: dict[str, str] = {}
        self.installs: list[str] = []
        self.settling: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.at_work = 0
        self.most_at_work = 0

    def install(
        self,
        path: Path,
        namespace: str,
        name: str | None = None,
        manifest_override: bytes | None = None,
    ) -> None:
        assert namespace == "system"
        assert name is not None
        content = path.read_bytes()
        self.installs.append(name)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.gate.wait(10)
        self.at_work -= 1
        if not content.startswith(b"good"):
            raise PieError("invalid-argument", f"not a component: {content[:9]!r}")
        self.serving[name] = content
        self.overrides[name] = manifest_override
        self.reasons.pop(name, None)

    def remove(self, namespace: str, name: str) -> None:
        self.serving.pop(name, None)
        self.reasons.pop(name, None)

    def reject(self, namespace: str, name: str, reason: str) -> None:
        self.reasons[name] = reason

    def progress(self, namespace: str, name: str, state: str) -> None:
        assert state == "settling"
        self.settling.add(name)


def eventually(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Waits until it holds; the deadline only guards against hanging."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        threading.Event().wait(0.01)
