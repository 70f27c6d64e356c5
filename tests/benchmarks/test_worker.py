"""Peers behind a pipe, played by a script."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load import Load, Timing
from benchmarks.peers import worker
from benchmarks.peers.worker import Worker
from benchmarks.question import Unanswerable
from support.waiting import until

PEER = """
import json, os, sys
print("{}", flush=True)
for line in sys.stdin:
    load = json.loads(line)
    if not load["prompts"]:
        sys.exit("nothing to do")
    count = [load["new_tokens"]] * len(load["prompts"])
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ)
    print(json.dumps({"seconds": 2.0, "num_tokens": count, "first_s": [os.getpid()]}), flush=True)
"""


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    (tmp_path / "peer/bin").mkdir(parents=True)
    (tmp_path / "peer/bin/python").symlink_to(sys.executable)
    (tmp_path / "peer/.complete").touch()
    (tmp_path / "script.py").write_text(PEER)
    monkeypatch.setattr(worker, "PEERS", tmp_path)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    started = Worker(str(tmp_path / "script.py"), "peer", {})
    yield started
    started.close()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_peer_answers_and_then_stands_still(peer: Worker) -> None:
    """It runs while it has its turn, and stops using the processor when it has answered."""
    load = Load([[1, 2], [3]], 4)
    timing = peer.run(load)
    pid = int(timing.first_s[0])
    again = peer.run(load)

    assert 4.0 == timing.tokens_per_s(load)
    assert again == timing
    until(lambda: _state(pid) == "T")
    assert pid != os.getpid()


def test_a_peer_that_ends_is_reported_with_what_it_said(peer: Worker) -> None:
    """Its last words are what helps; they go to a file while it works."""
    with pytest.raises(RuntimeError, match="nothing to do"):
        peer.run(Load([], 4))


def test_a_peer_that_is_not_installed_says_how_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an installation is none: only whoever has finished it says that it is complete."""
    (tmp_path / "peer/bin").mkdir(parents=True)
    monkeypatch.setattr(worker, "PEERS", tmp_path)

    with pytest.raises(Unanswerable, match=r"`make bench` installs it, .*setup\.sh"):
        Worker("script.py", "peer", {})


def test_a_timing_without_all_tokens_is_refused() -> None:
    """A contender that draws fewer tokens is not faster."""
    with pytest.raises(AssertionError):
        Timing(1.0, [3]).tokens_per_s(Load([[1]], 4))
