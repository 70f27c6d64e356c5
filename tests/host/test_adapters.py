"""The folder of a model's adapters: what is offered, and what is said about the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pie_daemon.errors import PieError
from pie_daemon.host.adapters import AdapterFolder
from pie_daemon.host.context import Model
from pie_daemon.host.interfaces.adapters import Adapter, digest_for, open_adapter
from pie_daemon.host.stop import Stopped
from pie_daemon.scheduler.adapters import Opening
from support.adapter_files import write_adapter_files


def refusal(folder: AdapterFolder, name: str) -> PieError:
    with pytest.raises(PieError) as caught:
        folder.find(name, "m")
    return caught.value


def test_without_a_folder_everything_is_denied() -> None:
    """Nothing is granted that the operator did not grant."""
    assert [] == AdapterFolder.at(None).names()
    assert "denied" == refusal(AdapterFolder.at(None), "a").code


def test_a_copy_into_the_folder_is_enough(tmp_path: Path) -> None:
    """The folder is looked at each time, and may be missing."""
    folder = AdapterFolder.at(str(tmp_path / "later"))
    assert "there are: none" in refusal(folder, "a").message
    for name in ("b", "a", ".hidden", "sp ace"):
        write_adapter_files(tmp_path / "later" / name)
    assert ["a", "b"] == folder.names()
    assert tmp_path / "later" / "a" == folder.find("a", "m")
    for name in (".hidden", "sp ace", "c", "", ".", "..", "a/../b", "/etc", "a\0"):
        assert "there are: a, b" in refusal(folder, name).message


def test_long_lists_are_cut(tmp_path: Path) -> None:
    """A message stays readable."""
    for number in range(30):
        write_adapter_files(tmp_path / f"a{number:02}")
    assert refusal(AdapterFolder(tmp_path), "b").message.endswith("a18, a19, ...")


class Stopping:
    """A host whose program is stopped while it waits."""

    def __init__(self, folder: AdapterFolder) -> None:
        self.mailbox = self
        self.waiting: list[Opening] = []
        nothing: Any = None
        service: Any = SimpleNamespace(adapters=self)
        self.model = Model("m", nothing, service, nothing, folder)

    def wake(self) -> None: ...

    def wait(self, ready: Callable[[], bool], timeout_s: float | None) -> bool:
        assert not ready()
        raise Stopped("cancelled", "by a test")

    def open(self, path: Path, notify: Callable[[], None]) -> Opening:
        self.waiting.append(Opening(path, (), notify))
        return self.waiting[-1]

    def close(self, opening: Opening) -> None:
        opening.closed = True


def test_a_program_that_is_stopped_while_it_waits_lets_go(tmp_path: Path) -> None:
    """Nothing stays loaded for it."""
    write_adapter_files(tmp_path / "a")
    host: Any = Stopping(AdapterFolder(tmp_path))
    with pytest.raises(Stopped):
        open_adapter(host, host.model, "a")
    assert [True] == [opening.closed for opening in host.waiting]


def test_an_adapter_is_for_its_model() -> None:
    """Shapes of another may even fit; the tokens would mean nothing."""
    nothing: Any = None
    model, other = (Model(name, nothing, nothing, nothing) for name in ("m", "o"))
    opening = Opening(Path("a"), (), lambda: None, digest="d")
    assert "d" == digest_for(model, Adapter(model, "a", opening))
    assert digest_for(model, None) is None
    with pytest.raises(PieError, match="adapter 'a' is for m; the context is of o") as refused:
        digest_for(other, Adapter(model, "a", opening))
    assert "invalid-argument" == refused.value.code
