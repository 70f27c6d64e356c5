"""From an author's folder to a component that Pie can serve."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pie_bakery.build import build, python
from pie_bakery.check import check
from pie_bakery.component import parse
from pie_bakery.errors import AuthorError, UsageError
from pie_bakery.scaffold import create
from support.components import HEADER
from support.programs import built

Write = Callable[[dict[str, str]], Path]
RUN = "def run(input):\n    return 1\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the part that takes seconds."""
    monkeypatch.setattr(python, "build", lambda folder: HEADER)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.usefixtures("quick")
def test_the_manifest_travels_in_the_component(write: Write) -> None:
    """Its text as it stands in the folder; the file is named after the inferlet."""
    folder = write({"main.py": RUN})
    result = build(folder)
    assert folder / "bot.wasm" == result.path
    assert (folder / "pie.toml").read_bytes() == parse(result.path.read_bytes()).manifest


@pytest.mark.usefixtures("quick")
def test_the_result_appears_whole_or_not_at_all(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written beside its place and renamed, readable as any file; a failure leaves nothing."""
    out = tmp_path / "new" / "x.wasm"
    build(write({"main.py": RUN}), out)
    umask = os.umask(0)
    os.umask(umask)
    assert 0o666 & ~umask == stat.S_IMODE(out.stat().st_mode)

    def fail(*_: object) -> None:
        raise OSError("no space")

    before = out.read_bytes()
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        build(tmp_path / "bot", out)
    assert ({"x.wasm"}, before) == (names(out.parent), out.read_bytes())


@pytest.mark.usefixtures("quick")
def test_a_folder_is_no_place_for_the_file(write: Write, tmp_path: Path) -> None:
    """`-o` takes a file's name."""
    with pytest.raises(UsageError, match="takes the name of the file"):
        build(write({"main.py": RUN}), tmp_path)


@pytest.mark.slow
def test_what_create_makes_builds_and_passes_the_check(tmp_path: Path) -> None:
    """The first three commands of an author; his folder holds nothing else afterwards."""
    files = {path.name for path in create(tmp_path / "my-bot")}
    result = build(tmp_path / "my-bot")
    report = check(result.path)
    assert () == report.problems
    assert report.manifest is not None
    assert "my-bot" == report.manifest.inferlet.name
    assert files | {"my-bot.wasm"} == names(tmp_path / "my-bot")


@pytest.mark.slow
def test_a_failure_while_importing_points_at_the_authors_line(write: Write) -> None:
    """The line that called for a host that is not there yet, in whatever file it stands."""
    helper = "from inferlet import Model\n\ndef load():\n    return Model.open()\n"
    folder = write({"main.py": "import helper\nMODEL = helper.load()\n" + RUN, "helper.py": helper})
    with pytest.raises(AuthorError) as caught:
        build(folder)
    assert ("helper.py", 4) == (caught.value.path.name, caught.value.line)
    assert "call Pie from within run()" in caught.value.message
    assert not (folder / "bot.wasm").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["echo", "text-completion", "chat"])
def test_the_shipped_inferlets_pass_the_check(name: str) -> None:
    """They import nothing beyond the world."""
    assert () == check(built(name)).problems
