"""A daemon without inferlets answers for its models all the same."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pie_daemon.gateway import shipped
from pie_daemon.gateway.shipped import Shipped
from support.daemon import DaemonProcess, ready
from support.gateway import endpoint, until
from support.ports import free_port
from support.programs import built
from support.rig import Rig
from support.waiting import until as blocking_until

pytestmark = pytest.mark.slow

COPY = (
    "import shutil, sys, pathlib; shutil.copy({!r} + pathlib.Path(sys.argv[1]).name, sys.argv[2])"
)
CHAT = {"model": "dummy", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
PATH = "/v1/chat/completions"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that takes what was built before."""
    for name in ("chat", "text-completion"):
        shutil.copy(built(name), tmp_path / f"built-{name}")
    monkeypatch.setattr(shipped, "_BUILD", COPY.format(f"{tmp_path}/built-"))


def names(rig: Rig) -> set[str]:
    return {info.name for info in rig.store.programs() if info.state == "ready"}


def states(rig: Rig) -> list[str]:
    return [info.state for info in rig.store.programs()]


@pytest.mark.usefixtures("quick")
async def test_what_is_missing_is_built_and_kept(rig: Rig, tmp_path: Path) -> None:
    """A request that comes too early is told to come again; a second start builds nothing."""
    async with endpoint(rig, tmp_path) as served:
        early = await served.client.post(PATH, json=CHAT)
        assert early.status_code in (200, 503)
        await until(lambda: {"chat", "text-completion"} <= names(rig))
        assert 200 == (await served.client.post(PATH, json=CHAT)).status_code
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "shipped").iterdir()}
    assert 2 == len(kept)
    rig.store.remove("system", "chat")
    Shipped(rig.store, tmp_path / "inferlets", tmp_path / "shipped").provide()
    assert "chat" in names(rig)
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "shipped").iterdir()}


def test_what_lies_in_the_folder_is_preferred(rig: Rig, tmp_path: Path) -> None:
    """Also while the watcher has not come to it yet."""
    for name in ("chat", "text-completion"):
        (tmp_path / f"{name}.wasm").touch()
    Shipped(rig.store, tmp_path, tmp_path / "shipped").provide()
    assert [] == rig.store.programs()


async def test_a_failed_build_says_what_to_do(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's operator gets the command; the reason is in `pie inferlets` too."""
    monkeypatch.setattr(shipped, "_BUILD", "raise SystemExit('no toolchain')")
    async with endpoint(rig, tmp_path) as served:
        await until(lambda: states(rig) == ["rejected", "rejected"])
        response = await served.client.post(PATH, json=CHAT)
    error = response.json()["error"]
    assert (503, "program_missing") == (response.status_code, error["code"])
    assert f"cp build/inferlets/chat.wasm {tmp_path / 'inferlets'}/" in error["message"]
    assert "no toolchain" in error["message"]


def test_a_stop_ends_a_build(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops the daemon does not wait for the compiler."""
    monkeypatch.setattr(shipped, "_BUILD", "import threading; threading.Event().wait()")
    providing = Shipped(rig.store, tmp_path, tmp_path / "shipped")
    thread = threading.Thread(target=providing.provide)
    thread.start()
    blocking_until(lambda: providing._building is not None)
    providing.stop()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.timeout(600)
def test_a_fresh_daemon_answers() -> None:
    """`pie serve gateway=on` and nothing else: built, compiled, answered."""
    port = free_port()
    daemon = DaemonProcess("gateway=on", f"gateway.port={port}")
    question = {"model": "crumb", "messages": [{"role": "user", "content": "What is Pie?"}]}
    shipped = daemon.root / "state/shipped"
    try:
        daemon.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            early = client.post(PATH, json=question)
            assert (503, "1") == (early.status_code, early.headers["retry-after"])
            blocking_until(lambda: any(shipped.glob("chat-*.wasm")), 300)
            with daemon.connect() as pie:
                blocking_until(lambda: "chat" in ready(pie), 300)
            made = client.post(PATH, json={**question, "temperature": 0})
        assert 200 == made.status_code, made.text
        assert "Pie" in made.json()["choices"][0]["message"]["content"]
        assert 0 == daemon.stop()
    finally:
        daemon.remove()
