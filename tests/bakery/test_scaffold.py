"""`bakery create`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_bakery.build import read_manifest
from pie_bakery.build.source import read
from pie_bakery.errors import UsageError
from pie_bakery.scaffold import create


def test_what_it_makes_is_sound(tmp_path: Path) -> None:
    """Manifest and program pass the checks that the build begins with."""
    written = create(tmp_path / "my-bot")
    assert {"pie.toml", "main.py", "README.md", ".gitignore"} == {path.name for path in written}
    assert "my-bot" == read_manifest(tmp_path / "my-bot")[1].inferlet.name
    assert read(tmp_path / "my-bot")


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    """Even an empty one."""
    (tmp_path / "bot").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        create(tmp_path / "bot")
    assert [] == list((tmp_path / "bot").iterdir())


@pytest.mark.parametrize(
    ("name", "hint"),
    [("My Bot", "`my-bot` would do"), ("9lives_x", "`lives-x` would do"), ("---", "letter$")],
)
def test_a_bad_name_gets_a_better_one(tmp_path: Path, name: str, hint: str) -> None:
    """What the name may hold, and the nearest that would pass."""
    with pytest.raises(UsageError, match=hint):
        create(tmp_path / name)
    assert not (tmp_path / name).exists()
