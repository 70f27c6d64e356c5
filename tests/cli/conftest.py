"""The command, with folders of its own and no daemon; `server` adds one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_client import wire
from support.command import Command, listening_in_thread
from support.fake_runtime import FakeInstance, echo
from support.listening import Listening


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the machine the tests run on is read or written."""
    for name in ("state", "runtime", "config"):
        monkeypatch.setenv(f"PIE_{name.upper()}_DIR", str(tmp_path / name))
    monkeypatch.setattr("pie_daemon.config.layers.SYSTEM_FOLDER", tmp_path / "etc")
    return tmp_path


@pytest.fixture
def pie(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def story(instance: FakeInstance) -> None:
    """Streams, remarks and ends as a chat program does."""
    instance.events.append("stdout", b"printed\x1b[31m\n")
    instance.events.append("stderr", b"warned\n")
    instance.events.append("log", b"noted", "info")
    for text in ("Once ", "upon"):
        instance.send(json.dumps({"type": "delta", "text": text}))
    instance.send(json.dumps({"type": "usage", "generated_tokens": 2}))
    result = json.dumps({"text": "Once upon", "tokens": [1, 2]})
    instance.finish(wire.Outcome(status="ok", result=result))


def conversation(instance: FakeInstance) -> None:
    """Waits until its client says no more, and returns what was said."""
    instance.input_closed.wait(20)
    instance.finish(wire.Outcome(status="ok", result=json.dumps(instance.received)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    """A listener at the default endpoint, over programs that are Python functions."""
    programs = {"story": story, "sha256:None": echo, "conversation": conversation}
    with listening_in_thread(**programs) as listening:
        monkeypatch.setenv("PIE_RUNTIME_DIR", str(listening.directory))
        yield listening
