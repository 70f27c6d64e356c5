"""The command `pie` inside the test's process, against a real listener in another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from pie_daemon.cli import main
from support.fake_runtime import Program
from support.listening import Listening, listening


@dataclass
class Answer:
    code: int
    out: str
    err: str


class Command:
    """Calls `pie` as the shell would; Python's warnings are errors all the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Answer:
        self._monkeypatch.setattr("sys.argv", ["pie", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self._capsys.readouterr()
        return Answer(int(ended.value.code or 0), captured.out, captured.err)


@contextmanager
def listening_in_thread(**programs: Program) -> Iterator[Listening]:
    """A listener that serves while the test's own thread blocks in a command."""
    ready = threading.Event()
    box: list[Listening] = []
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with listening(None, **programs) as server:
            box.append(server)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield box[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()
