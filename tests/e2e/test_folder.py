"""A file drop is a deployment: the watched folder of a running daemon."""

from __future__ import annotations

import shutil

import pytest

from pie_bakery import component
from pie_client import Client
from pie_client.wire import ProgramInfo
from support.daemon import DaemonProcess
from support.programs import built
from support.waiting import until

pytestmark = pytest.mark.slow


def info(client: Client, name: str) -> ProgramInfo:
    return next(p for p in client.programs() if p.name == name and p.state != "draining")


def test_a_copied_component_is_live_and_a_removed_one_is_gone(daemon: DaemonProcess) -> None:
    """Under the stem of its file."""
    target = daemon.folder / "dropped.wasm"
    shutil.copy(built("echo"), target)
    with daemon.connect() as client:
        until(lambda: any(p.name == "dropped" and p.state == "ready" for p in client.programs()))
        assert {"a": 1} == client.launch("dropped", {"a": 1}).result()
        target.unlink()
        until(lambda: all(p.name != "dropped" for p in client.programs()))


def test_a_broken_file_is_rejected_with_the_reason_and_the_old_version_serves(
    daemon: DaemonProcess,
) -> None:
    """A truncated copy replaces nothing; the mended file is taken."""
    target = daemon.folder / "fragile.wasm"
    whole = built("echo").read_bytes()
    target.write_bytes(whole)
    with daemon.connect() as client:
        until(lambda: any(p.name == "fragile" and p.state == "ready" for p in client.programs()))
        digest = info(client, "fragile").digest
        target.write_bytes(whole[: len(whole) // 2])
        until(lambda: bool(info(client, "fragile").reason))

        assert digest == info(client, "fragile").digest
        assert 5 == client.launch("fragile", 5).result()
        target.write_bytes(whole)
        until(lambda: info(client, "fragile").reason is None)
    target.unlink()


def test_replacing_a_program_disturbs_none_of_its_running_instances(
    daemon: DaemonProcess,
) -> None:
    """Twenty wait on the old version while the new one takes its name; all of them end well."""
    target = daemon.folder / "swapped.wasm"
    old = built("behave").read_bytes()
    new = component.with_custom_section(old, "note", b"the same program with other bytes")
    target.write_bytes(old)
    with daemon.connect() as client:
        until(lambda: any(p.name == "swapped" and p.state == "ready" for p in client.programs()))
        digest = info(client, "swapped").digest
        waiting = [client.launch("swapped", {"do": "receive"}) for _ in range(20)]
        for process in waiting:
            next(iter(process.events()))
        target.write_bytes(new)
        until(lambda: info(client, "swapped").digest not in ("", digest))
        assert any(p.state == "draining" and p.instances == 20 for p in client.programs())

        for process in waiting:
            process.send("go on")
        assert 20 == sum("go on" in process.result() for process in waiting)
        assert client.launch("swapped", {"do": "log"}).digest != digest
        until(lambda: all(p.state != "draining" for p in client.programs()))
    target.unlink()
