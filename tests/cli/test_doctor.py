"""Each check both ways: sound, and broken on purpose with the way out."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from pie_client.errors import PieError
from pie_daemon.cli.doctor import places, service, software
from pie_daemon.cli.doctor.check import Check, Result, ok, run_all
from pie_daemon.cli.doctor.run import checks
from pie_daemon.cli.doctor.service import Setup
from pie_daemon.watcher import notify
from support.command import Command
from support.listening import Listening


def expect(result: Result, status: str, *parts: str) -> None:
    """The status, and parts of what is said; what is wrong has a reason and a way out."""
    assert status == result.status, result
    for part in parts:
        assert part in f"{result.summary} {result.why} {result.fix}"
    if status in ("warn", "fail"):
        assert result.why
        assert result.fix


def test_checks_are_isolated() -> None:
    """One that raises and one that hangs are findings; the others answer."""
    release = threading.Event()

    def hang() -> Result:
        release.wait(30)
        return ok("late")

    def explode() -> Result:
        raise RuntimeError("boom")

    reports = run_all(
        [Check("a", hang, timeout_s=0.05), Check("b", explode), Check("c", lambda: ok("fine"))]
    )
    release.set()

    assert [("a", "fail"), ("b", "fail"), ("c", "ok")] == [(r.id, r.status) for r in reports]
    assert "no answer within 0.05 s" in reports[0].summary
    assert "boom" in reports[1].summary


def test_report_for_people_and_for_programs(pie: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings exit 0, failures 1; JSON holds every check with every field."""
    found = [
        Check("one", lambda: ok("fine")),
        Check("two", lambda: Result("warn", "odd", "w", "f")),
    ]
    monkeypatch.setattr("pie_daemon.cli.doctor.run.checks", lambda _: found)
    warned = pie("doctor")
    found.append(Check("three", lambda: Result("fail", "broken", "why", "fix it")))
    failed, document = pie("doctor"), json.loads(pie("doctor", "--json").out)

    assert (0, 1) == (warned.code, failed.code)
    assert "FAIL  three: broken\n      why\n      -> fix it\n" in failed.out
    assert {"schema", "version", "checks"} == set(document)
    assert {"id", "status", "summary", "why", "fix", "data"} == set(document["checks"][0])
    assert ["ok", "warn", "fail"] == [check["status"] for check in document["checks"]]


def test_every_area_is_covered() -> None:
    """The list of checks is what people were promised."""
    ids = [check.id for check in checks([])]

    assert len(set(ids)) == len(ids)
    assert {"python", "torch", "wasmtime", "model", "socket_path", "lock", "daemon"} <= set(ids)


@pytest.mark.parametrize(
    ("found", "wanted", "holds"),
    [
        ("49.0.0", "==49.0.0", True),
        ("50.0.1", "==49.0.0", False),
        ("2.3.1", ">=2.3.1,<2.4", True),
        ("2.4.0", ">=2.3.1,<2.4", False),
        ("2.13.0+cpu", "==2.13.0", True),
        ("27", ">=27", True),
        ("1.0", "", True),
    ],
)
def test_pins_are_compared_by_number(
    monkeypatch: pytest.MonkeyPatch, found: str, wanted: str, holds: bool
) -> None:
    """The specifier is the one that the installed distribution declares."""
    monkeypatch.setattr(
        software, "requires", lambda _: [f"thing{wanted} ; extra == 'x'", "other>1"]
    )
    monkeypatch.setattr(software, "installed", lambda _: found)

    expect(software.pinned("thing", "all breaks"), "ok" if holds else "fail")


def test_missing_packages_have_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be installed is named."""
    monkeypatch.setattr(software, "installed", lambda _: None)
    expect(software.wasmtime(), "fail", "wasmtime is missing", 'pip install "wasmtime==49.0.0"')
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    expect(software.torch(), "fail", "pip install torch")
    expect(software.bakery(), "warn", "not built here", "pip install pie-bakery")


def test_present_packages_are_ok() -> None:
    """This environment has what the suite runs with."""
    for check in (software.python, software.wasmtime, software.hydra, software.bakery):
        expect(check(), "ok")


def test_broken_torch_is_told_by_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import runs elsewhere, so that a crash is a finding, too."""

    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: libfoo.so")

    monkeypatch.setattr("subprocess.run", run)
    expect(software.torch(), "fail", "ImportError: libfoo.so")
    sound = subprocess.CompletedProcess([], 0, "2.13.0+cpu False\n", "")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: sound)
    expect(software.torch(), "ok", "torch 2.13.0+cpu, without CUDA")


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("ok\tnative, AMX\t\n", "ok", ["native, AMX"]),
        ("skip\tthe processor has no AVX2\t\n", "skip", ["by torch", "AVX2"]),
        ("warn\tthere is no C compiler\tinstall gcc\n", "warn", ["C compiler", "install gcc"]),
    ],
)
def test_kernels(monkeypatch: pytest.MonkeyPatch, said: str, status: str, words: list[str]) -> None:
    """What can be helped is a warning, and what cannot is none."""
    answer = subprocess.CompletedProcess([], 0, said, "")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: answer)
    expect(software.kernels(), status, *words)


_PROBLEM = {"what": "there is no nvcc", "fix": "install the toolkit"}


@pytest.mark.parametrize(
    ("wanted", "driver", "problem", "status", "words"),
    [
        ("auto", [13, 0], None, "ok", ["H100", "FlashInfer 0.6.4"]),
        ("cuda", [13, 0], _PROBLEM, "fail", ["no nvcc", "will not start", "toolkit"]),
        ("auto", [13, 0], _PROBLEM, "warn", ["no nvcc", "on the processor", "toolkit"]),
        ("auto", None, _PROBLEM, "skip", ["without an NVIDIA GPU"]),
        ("cpu", [13, 0], _PROBLEM, "skip", ["without an NVIDIA GPU"]),
    ],
)
def test_gpu(
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    driver: list[int] | None,
    problem: dict[str, str] | None,
    status: str,
    words: list[str],
) -> None:
    """What is missing is a fault where a GPU is asked for, and a warning where one idles."""
    facts = {"gpu": "H100", "flashinfer": "0.6.4", "driver_cuda": driver}
    said = json.dumps({"facts": facts, "problem": problem})
    answer = subprocess.CompletedProcess([], 0, said, "")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: answer)
    expect(software.gpu(wanted), status, *words)


def test_gpu_of_this_machine() -> None:
    """It is looked for with the torch that is installed."""
    found = Setup(["backend.device=cpu"]).gpu()
    assert found.status in ("ok", "skip")
    assert "GPU" in found.summary
    assert Setup(["no.such=1"]).gpu().status == "skip"


def test_kernels_of_this_machine() -> None:
    """They are compiled for real, or it is said why not."""
    found = software.kernels()
    assert found.status in ("ok", "skip", "warn")
    assert "native" in found.summary or "processor" in found.summary or found.fix


def test_state_folder(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creatable, a folder, writable, with space left."""
    expect(places.state_folder(), "ok")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10 << 20))
    expect(places.state_folder(), "warn", "10 MiB left", "PIE_STATE_DIR")
    monkeypatch.setattr("os.access", lambda *_: False)
    expect(places.state_folder(), "fail", "not writable")
    (folders / "state").write_text("")
    expect(places.state_folder(), "fail", "is no folder")


def test_runtime_folder(folders: Path) -> None:
    """Nobody else may enter it."""
    expect(places.runtime_folder(), "ok")
    (folders / "runtime").mkdir(mode=0o755)
    expect(places.runtime_folder(), "warn", "chmod 700")


def test_config_folder(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all is fine; one that cannot be read is not."""
    expect(places.config_folder(), "ok", "does not exist")
    (folders / "config").mkdir()
    expect(places.config_folder(), "ok")
    monkeypatch.setattr("os.access", lambda *_: False)
    expect(places.config_folder(), "fail", "cannot be read", "chmod u+rx")


def test_socket_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel cuts at 107 bytes; the message says how to get there."""
    monkeypatch.setenv("PIE_RUNTIME_DIR", "/tmp/" + "x" * (107 - len("/tmp//pie.sock")))
    expect(places.socket_path(), "ok", "107 of 107")
    monkeypatch.setenv("PIE_RUNTIME_DIR", "/tmp/" + "x" * 100)
    expect(places.socket_path(), "fail", "PIE_RUNTIME_DIR")


def test_lock_tells_who_holds_it(folders: Path) -> None:
    """The holder's process is named, and looking does not disturb him."""
    expect(places.lock(), "ok", "no daemon has run")
    (folders / "runtime").mkdir()
    path = folders / "runtime" / "pie.lock"
    path.write_text("4711\n")
    expect(places.lock(), "ok", "not held")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        expect(places.lock(), "ok", "held by process 4711")
        expect(service.daemon(), "fail", "nothing answers", "wait a moment")


@pytest.mark.parametrize(
    ("overrides", "status", "part"),
    [
        ([], "ok", "no MCP servers are declared"),
        (["mcp.servers.a.command=sh", "limits.tools=[a]"], "ok", "MCP servers: a"),
        (["mcp.servers.a.url=http://127.0.0.1/mcp", "limits.tools=['*']"], "ok", "MCP servers: a"),
        (["mcp.servers.a.command=sh"], "warn", "limits.tools is empty"),
        (["mcp.servers.a.command=no-such"], "warn", "full path into mcp.servers.a.command"),
        (["mcp.servers.a.command=sh", "mcp.servers.a.cwd=/no/such"], "warn", "mcp.servers.a.cwd"),
        (["mcp.servers.a.command=sh", "mcp.servers.a.env={PATH: /no}"], "warn", "no command 'sh'"),
        (["no.such=1"], "skip", ""),
    ],
)
def test_mcp_servers(folders: Path, overrides: list[str], status: str, part: str) -> None:
    """Whether what is declared could be started and used."""
    expect(Setup(overrides).mcp_servers(), status, part)


def test_watch_folder(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing is fine, unreadable is not, and writable by all is a risk."""
    folder = folders / "state" / "inferlets"
    expect(Setup([]).watch_folder(), "ok", "does not exist yet")
    folder.mkdir(parents=True)
    (folder / "a.wasm").write_bytes(b"x")
    expect(Setup([]).watch_folder(), "ok", "1 programs")
    folder.chmod(0o777)
    expect(Setup([]).watch_folder(), "warn", "chmod o-w")
    monkeypatch.setattr("os.access", lambda *_: False)
    expect(Setup([]).watch_folder(), "fail", "cannot be read")
    assert notify.file_system(folder) is not None


def test_configuration_and_models(tmp_path: Path) -> None:
    """A broken configuration is one failure, not one for each check that needs it."""
    broken = Setup(["backend.nonsense=1"])
    expect(broken.configuration(), "fail", "backend.nonsense")
    expect(broken.models(), "skip")
    expect(broken.watch_folder(), "skip")

    expect(Setup([]).configuration(), "ok")
    missing = Setup([f"model.path={tmp_path}/none"])
    expect(missing.models(), "fail", "model none", "model.path")


def test_ranks_have_to_divide_the_models() -> None:
    """As the daemon would say when it starts, with the numbers that would do."""
    expect(Setup(["backend.tensor_parallel=2"]).models(), "ok", "divided among 2 ranks")
    expect(Setup(["backend.tensor_parallel=5"]).models(), "fail", "allowed: 1, 2", "one of the")


def test_daemon(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers, answers in another version, or not at all."""
    expect(service.daemon(), "ok", "answers")
    monkeypatch.setattr(service, "__version__", "99.0")
    expect(service.daemon(), "warn", "this command 99.0", "restart the daemon")


def test_rejected_programs_are_a_warning() -> None:
    """A program that cannot be run is found where people look first."""
    from pie_daemon import __version__

    expect(service._judge(f"pie {__version__}", ["a: torn"]), "warn", "a: torn")


def test_a_model_that_does_not_compute_is_a_failure() -> None:
    """The daemon answers, and yet every program waits."""
    why = "crumb: restarting the worker, attempt 3, next in 4 s: it is gone"
    expect(service._judge("pie", [], [why]), "fail", "attempt 3", "keeps trying")


def test_no_daemon_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most commands boot one of their own; one that misbehaves is another matter."""
    expect(service.daemon(), "skip", "pie serve")

    def refuse(**_: object) -> None:
        raise PieError("unsupported", "protocol version 9")

    monkeypatch.setattr("pie_client.sync.Client.connect", refuse)
    expect(service.daemon(), "fail", "protocol version 9")


def test_gateway_off_absent_and_taken() -> None:
    """Off is fine; a port that another program has is found."""
    expect(Setup([]).gateway(), "ok", "off")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    on = ["gateway=on", f"gateway.port={port}"]
    expect(Setup(on).gateway(), "skip", "nothing answers")
    with socket.create_server(("127.0.0.1", port)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0 hello\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        expect(Setup(on).gateway(), "fail", "something else", "gateway.port")
        thread.join()
    expect(Setup(["gateway=nonsense"]).gateway(), "skip")
