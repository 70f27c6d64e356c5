"""The client for programs without asyncio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pie_client import Client, NotRunning, PieError, Process, ProgramError, wire
from pie_client.events import Blob, Event, Finished, Log, Message, Stderr, Stdout
from support.fake_runtime import FakeInstance
from support.listening import Listening, listening


def talk(instance: FakeInstance) -> None:
    """Says one thing of each kind."""
    instance.events.append("stdout", b"out")
    instance.events.append("stderr", b"err \xff")
    instance.events.append("log", b"careful", "warning")
    instance.events.append("message", b'{"type":"delta","text":"4"}')
    instance.events.append("blob", b"\x00" * 600_000, "image")
    instance.finish(wire.Outcome(status="ok", result="not json"))


@contextmanager
def serving() -> Iterator[Listening]:
    """A listener in a thread of its own, as a daemon would be in its own process."""
    loop = asyncio.new_event_loop()
    context = listening(talk=talk)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.set_event_loop, loop).result()
        running = thread.submit(loop.run_until_complete, context.__aenter__()).result()
        serve = thread.submit(loop.run_forever)
        try:
            yield running
        finally:
            loop.call_soon_threadsafe(loop.stop)
            serve.result()
            thread.submit(loop.run_until_complete, context.__aexit__(None, None, None)).result()
            thread.submit(loop.close).result()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Listening]:
    with serving() as running:
        yield running


@pytest.fixture
def client(daemon: Listening) -> Iterator[Client]:
    with Client.connect(daemon.ipc) as connected:
        yield connected


def test_events_are_typed(client: Client) -> None:
    """Every kind of event arrives as its own type, in order, whole."""
    process = client.launch("talk")
    assert list(process.events()) == [
        Stdout(1, "out"),
        Stderr(2, "err \ufffd"),
        Log(3, "warning", "careful"),
        Message(4, '{"type":"delta","text":"4"}'),
        Blob(5, "image", b"\x00" * 600_000),
        Finished(6, wire.Outcome(status="ok", result="not json")),
    ]
    assert process.result() == "not json"
    assert list(process.events()) == []


def test_a_loop_may_be_left_and_taken_up_again(client: Client) -> None:
    """Leaving the events and coming back loses none."""
    process = client.launch("talk")
    seen: list[Event] = []
    for event in process.events():
        seen.append(event)
        if isinstance(event, Stderr):
            break
    assert process.last_seq == 2
    seen.extend(process.events())
    assert [event.seq for event in seen if not isinstance(event, Finished)] == [1, 2, 3, 4, 5]


def test_result_without_iterating(client: Client) -> None:
    """Whoever only wants the result need not read the events."""
    assert client.launch("echo", [1, 2]).result() == [1, 2]
    assert client.launch("echo", '"text"').result() == "text"
    assert client.launch("echo").result() == {}
    with pytest.raises(ProgramError):
        client.launch("fail").result()


def test_conversation(client: Client, daemon: Listening) -> None:
    """Messages, blobs and the end of input reach the program."""
    process = client.launch("wait", max_tokens_total=7)
    process.send("text")
    process.send({"a": 1})
    process.send_blob("file", b"x" * 1_000_000)
    process.close_input()
    instance = daemon.supervisor.all[process.id]
    assert instance.received == ["text", '{"a":1}']
    assert instance.blobs == [("file", b"x" * 1_000_000)]
    assert instance.input_closed.is_set()
    assert instance.budgets == wire.Budgets(max_tokens_total=7)
    process.terminate("enough")
    assert process.outcome().status == "cancelled"
    assert instance.stop_reason == "enough"


def test_leaving_a_process_stops_it(client: Client, daemon: Listening) -> None:
    """`with` stops what this client launched, and leaves alone what it only looked at."""
    with client.launch("wait") as process:
        pass
    assert process.outcome().status == "cancelled"
    with client.launch("wait", detached=True) as process:
        pass
    with client.attach(process.id) as again:
        assert not again.finished
    assert not daemon.supervisor.all[process.id].stopped.is_set()
    client.terminate(process.id)


def test_detach_and_attach(client: Client, daemon: Listening) -> None:
    """A detached process can be attached to by another client, from where it was left."""
    process = client.launch("wait")
    instance = daemon.supervisor.all[process.id]
    for number in range(1, 6):
        instance.send(str(number))
    events = process.events()
    assert [next(events), next(events)] == [Message(1, "1"), Message(2, "2")]
    process.detach()
    assert process.last_seq == 2
    with pytest.raises(PieError, match="detached"):
        process.outcome()
    instance.cancel("enough")
    with Client.connect(daemon.ipc) as other:
        rest = list(other.attach(process.id, after=process.last_seq).events())
    assert rest[:3] == [Message(3, "3"), Message(4, "4"), Message(5, "5")]
    assert isinstance(rest[3], Finished)


def test_detach_from_what_has_ended(client: Client) -> None:
    """Detaching after the last event does nothing."""
    process = client.launch("echo", "1")
    assert process.result() == 1
    process.detach()
    assert process.result() == 1


def test_attach_after_everything_was_acknowledged(client: Client) -> None:
    """The outcome of a finished instance is told even when its events are gone."""
    process = client.launch("echo", "5")
    assert process.result() == 5
    client.ping()
    assert client.attach(process.id).result() == 5


def test_attaching_twice_ends_the_first(client: Client) -> None:
    """Of two processes for one instance in one client, the later one gets the events."""
    first = client.launch("wait")
    second = client.attach(first.id)
    with pytest.raises(PieError, match="attached to anew"):
        first.outcome()
    second.terminate()
    assert second.outcome().status == "cancelled"


def test_upload_of_a_file(client: Client, tmp_path: Path) -> None:
    """A file is named after its stem, and progress is told."""
    path = tmp_path / "my agent.wasm"
    path.write_bytes(b"x" * 600_000)
    steps: list[tuple[int, int]] = []
    info = client.upload(path, progress=lambda sent, total: steps.append((sent, total)))
    assert (info.name, info.size_bytes) == ("my-agent", 600_000)
    assert steps[-1] == (600_000, 600_000)
    assert [one.name for one in client.programs() if one.name == "my-agent"] == ["my-agent"]
    with pytest.raises(PieError, match="not a component"):
        client.upload(b"bad")


def test_questions(client: Client) -> None:
    """Status, ping and lists answer."""
    assert client.server.startswith("pie ")
    assert client.ping() > 0
    assert client.status().detail == {"fake": True}
    assert isinstance(client.instances(), list)


def test_too_large_a_message_is_refused_here(client: Client) -> None:
    """A message over the daemon's limit is not sent, and the connection goes on."""
    process = client.launch("wait")
    with pytest.raises(PieError, match="over the daemon's limit"):
        process.send("x" * 5_000_000)
    assert client.ping() > 0


def test_many_threads(client: Client) -> None:
    """One client may be used by many threads."""

    def work(number: int) -> object:
        return client.launch("echo", number).result()

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(work, range(100))) == list(range(100))


def test_close_wakes_whoever_waits(daemon: Listening) -> None:
    """Closing ends calls of other threads with an error."""
    client = Client.connect(daemon.ipc)
    process = client.launch("wait")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(process.outcome)
        client.ping()
        client.close()
        with pytest.raises(PieError, match="closed"):
            waiting.result()
    client.close()
    with pytest.raises(PieError, match="closed"):
        client.ping()


def test_no_daemon() -> None:
    """Without a daemon no thread is left over."""
    before = threading.active_count()
    with pytest.raises(NotRunning, match="nothing listens"):
        Client.connect("ipc:///tmp/nobody-here.sock")
    assert threading.active_count() == before


def test_a_program_that_forgets_to_close_still_ends(daemon: Listening) -> None:
    """A script without `close` does not hang at its end."""
    code = (
        "import sys\nfrom pie_client import Client\n"
        "client = Client.connect(sys.argv[1])\nprint(client.launch('echo', 1).result())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, daemon.ipc], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_process_shows_what_it_is(client: Client) -> None:
    """The representation names id and program."""
    process = client.launch("echo")
    assert isinstance(process, Process)
    assert repr(process) == f"<Process {process.id} echo>"
