"""A backend in a worker process: same answers, its own end, and errors in its own words."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

import pie_backend.process
from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import BackendConfig, Batch, Row, Sample, Sampling
from pie_backend.channel import Channel
from pie_backend.create import create_backend
from pie_backend.lifeline import Lifeline
from pie_backend.process import ProcessBackend
from pie_backend.worker import NICE
from support.adapter_files import write_adapter_files

HANG_S = 60.0
Open = Callable[..., ProcessBackend]
DUMMY = BackendConfig(name="test", kind="dummy", path="", kv_pages=64)


@pytest.fixture
def open_worker() -> Iterator[Open]:
    opened: list[ProcessBackend] = []

    def start(config: BackendConfig = DUMMY) -> ProcessBackend:
        opened.append(ProcessBackend(config))
        return opened[-1]

    yield start
    for backend in opened:
        backend.close()


def batch(step: int = 0) -> Batch:
    return Batch(step, [Row([1, 2, 3], 0, [5], [Sample(2, Sampling())]), Row([4] * 20, 0, [6, 9])])


def test_a_worker_makes_way_for_the_daemon(open_worker: Open) -> None:
    """Its priority is lower than that of the process that started it."""
    mine = os.getpriority(os.PRIO_PROCESS, 0)

    assert min(19, mine + NICE) == os.getpriority(os.PRIO_PROCESS, open_worker().pid)


def test_an_interruption_reaches_a_burst(open_worker: Open) -> None:
    """Whether it comes before or while it is computed; one that comes late means nothing."""
    worker = open_worker(msgspec.structs.replace(DUMMY, kv_pages=4096))
    passes = 60_000
    row = Row([1], 0, list(range(4096)), [Sample(0, Sampling())])
    worker.interrupt(1)
    assert 1 == len(worker.execute(Batch(1, [row], passes=passes)).tokens[0])
    threading.Timer(0.2, worker.interrupt, [2]).start()
    made = len(worker.execute(Batch(2, [row], passes=passes)).tokens[0])
    assert 1 <= made < passes
    worker.interrupt(2)
    assert 3 == len(worker.execute(Batch(3, [row], passes=3)).tokens[0])


def test_passes_are_told_across_the_border(open_worker: Open) -> None:
    worker = open_worker(msgspec.structs.replace(DUMMY, kv_pages=64))
    row = Row([1], 0, list(range(64)), [Sample(0, Sampling())])
    whole = worker.execute(Batch(1, [row], passes=9)).tokens[0]
    told: list[int] = []
    last = worker.execute_telling(
        Batch(2, [row], passes=9, told=True), lambda result: told.extend(result.tokens[0])
    )
    assert whole == told + last.tokens[0]
    assert 1 == len(last.tokens[0])


def test_a_worker_that_dies_between_two_told_passes_is_gone(open_worker: Open) -> None:
    worker = open_worker(msgspec.structs.replace(DUMMY, kv_pages=4096))
    row = Row([1], 0, list(range(4096)), [Sample(0, Sampling())])
    with pytest.raises(BackendError):
        worker.execute_telling(
            Batch(1, [row], passes=60_000, told=True), lambda _: os.kill(worker.pid, signal.SIGKILL)
        )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_answers_like_inline(open_worker: Open) -> None:
    """Info and results cross the border unchanged, over many steps."""
    worker = open_worker()
    inline = create_backend(
        BackendConfig(name="test", kind="dummy", path="", kv_pages=64, placement="inline")
    )
    assert worker.info == inline.info
    for step in range(20):
        assert worker.execute(batch(step)) == inline.execute(batch(step))


def test_default_placement_is_a_process() -> None:
    """`create_backend` starts a worker unless told otherwise; closing ends it."""
    backend = create_backend(DUMMY)
    assert isinstance(backend, ProcessBackend)
    assert not is_gone(backend.pid)
    backend.close()
    backend.close()
    assert is_gone(backend.pid)
    with pytest.raises(BackendError, match="closed"):
        backend.execute(batch())


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (BackendConfig(name="t", path="/nowhere"), "no model directory at /nowhere"),
        (
            BackendConfig(name="t", kind="psychic"),
            "kind 'psychic' is unknown; expected one of engi",
        ),
        (BackendConfig(name="t", kind="dummy", path="/nowhere"), "no model directory at /nowhere"),
    ],
)
def test_start_up_errors_arrive_in_full(config: BackendConfig, complaint: str) -> None:
    """What goes wrong while the worker builds its backend is raised here with its text."""
    with pytest.raises(BackendError) as caught:
        create_backend(config)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"placement": "cloud"}, "placement 'cloud' is unknown; expected one of inline, process"),
        ({"page_size": 0}, "page_size is 0"),
        ({"kv_pages": 0}, "kv_pages is 0"),
    ],
)
def test_settings_out_of_range(changes: dict[str, object], complaint: str) -> None:
    """Settings that cannot be meant are refused before anything starts."""
    with pytest.raises(BackendError, match=complaint):
        create_backend(BackendConfig(name="t", kind="dummy", **changes))  # type: ignore[arg-type]


def test_death_is_noticed_at_once(open_worker: Open) -> None:
    """A killed worker fails the next step, and every later one, with the signal's name."""
    worker = open_worker()
    os.kill(worker.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(BackendError, match="was killed by SIGKILL; was it out of memory"):
            worker.execute(batch())


def test_a_lifeline_tells_of_a_death_that_nobody_asked_about() -> None:
    """With the signal's name, and the process reaped; a regular end is no death."""
    told = threading.Event()
    lifeline = Lifeline()
    lifeline.listen(told.set)
    create_backend(DUMMY, lifeline).close()
    assert (False, None) == (told.is_set(), lifeline.cause)
    worker = ProcessBackend(DUMMY, lifeline)
    os.kill(worker.pid, signal.SIGKILL)
    assert told.wait(HANG_S)
    assert "was killed by SIGKILL" in (lifeline.cause or "")
    assert not psutil.pid_exists(worker.pid)
    worker.close()


def test_a_cut_lifeline_ends_what_is_being_built() -> None:
    """The worker loads a model, which takes a while; the builder hears of it at once."""
    lifeline = Lifeline()
    lifeline.cut()
    with pytest.raises(BackendError):
        create_backend(BackendConfig(name="t"), lifeline)


def test_death_in_the_middle_of_a_step(open_worker: Open) -> None:
    """A step that is waiting when the worker dies ends with an error, not a hang."""
    worker = open_worker()
    os.kill(worker.pid, signal.SIGSTOP)
    caught: list[BaseException] = []

    def execute() -> None:
        try:
            worker.execute(batch())
        except BackendError as error:
            caught.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    os.kill(worker.pid, signal.SIGKILL)
    thread.join(HANG_S)
    assert not thread.is_alive()
    assert "SIGKILL" in str(caught[0])


def test_an_invalid_batch_ends_the_worker_with_its_reason(open_worker: Open) -> None:
    """The worker's complaint about a batch arrives in its own words."""
    with pytest.raises(BackendError, match="page is outside"):
        open_worker().execute(Batch(0, [Row([1], 0, [99], [Sample(0, Sampling())])]))


def test_adapters_cross_the_border(open_worker: Open, tmp_path: Path) -> None:
    """Loading, using and unloading them works as inline, and a refusal leaves the worker alive."""
    write_adapter_files(tmp_path / "one")
    write_adapter_files(tmp_path / "bad", use_dora=True)
    worker = open_worker()
    inline = create_backend(
        BackendConfig(name="test", kind="dummy", path="", kv_pages=64, placement="inline")
    )
    info = worker.load_adapter(str(tmp_path / "one"))
    assert inline.load_adapter(str(tmp_path / "one")) == info
    asking = Batch(0, [Row([1, 2], 0, [5], [Sample(1, Sampling())], adapter=info.digest)])
    assert worker.execute(asking) == inline.execute(asking)
    with pytest.raises(AdapterError, match="use_dora") as refused:
        worker.load_adapter(str(tmp_path / "bad"))
    assert ("unsupported", False) == (refused.value.code, refused.value.no_room)
    worker.unload_adapter(info.digest)
    with pytest.raises(BackendError, match="not loaded"):
        worker.execute(asking)


def test_interrupt_is_for_the_parent(open_worker: Open) -> None:
    """SIGINT leaves the worker alone."""
    worker = open_worker()
    os.kill(worker.pid, signal.SIGINT)
    assert worker.execute(batch(3)).step == 3


def test_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """When the parent is killed outright, its worker goes too, even stuck in a long wait."""
    script = (
        "import sys; from pie_backend.batch import BackendConfig\n"
        "from pie_backend.process import ProcessBackend\n"
        "b = ProcessBackend(BackendConfig(name='t', kind='dummy', path='', kv_pages=4))\n"
        "print(b.pid, flush=True); sys.stdin.read()"
    )
    root = str(Path(pie_backend.__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        worker_pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    wait_until(lambda: is_gone(worker_pid))


def test_worker_prints_to_stderr_only(capfd: pytest.CaptureFixture[str], open_worker: Open) -> None:
    """Nothing a worker does reaches the standard output of its parent."""
    open_worker().execute(batch())
    assert capfd.readouterr().out == ""


def test_failed_start_leaves_no_process() -> None:
    """A worker that could not start is reaped before the error is raised."""
    before = {child.pid for child in psutil.Process().children()}
    with contextlib.suppress(BackendError):
        create_backend(BackendConfig(name="t", path="/nowhere"))
    assert {child.pid for child in psutil.Process().children()} <= before


def test_channel_frames() -> None:
    """Frames of any size arrive whole; a hang-up is None, even inside a frame."""
    left, right = socket.socketpair()
    sender, receiver = Channel(left), Channel(right)
    large = Batch(1, [Row(list(range(50_000)), 0, [0])])
    thread = threading.Thread(target=lambda: (sender.send(batch()), sender.send(large)))
    thread.start()
    assert receiver.receive() is not None
    assert len(receiver.receive() or b"") > 50_000
    thread.join()
    left.send(b"\x10\x00\x00\x00half")
    sender.close()
    assert receiver.receive() is None
    assert not select.select([right], [], [], 0)[2]
    receiver.close()
