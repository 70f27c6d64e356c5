"""`bakery check`: everything wrong with a file, at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_bakery.build.toolchain import sdk_folder
from pie_bakery.check import Report, check, foreign_imports, world_interfaces
from support.components import HEADER, RUN, custom, exports, imports

WORLD = frozenset({"pie:inferlet/models@0.1.3"})


def checked(tmp_path: Path, data: bytes) -> Report:
    path = tmp_path / "a.wasm"
    path.write_bytes(data)
    return check(path)


def test_a_sound_component_has_no_problems(tmp_path: Path) -> None:
    """With or without a manifest."""
    sound = HEADER + imports("pie:inferlet/models@0.1.0", "wasi:cli/stdout@0.2.4") + exports(RUN)
    assert () == checked(tmp_path, sound).problems
    report = checked(tmp_path, sound + custom("pie:manifest", b'[inferlet]\nname = "a"'))
    assert report.ok
    assert report.manifest is not None
    assert "a" == report.manifest.inferlet.name


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    """Manifest, imports and export, each named."""
    data = HEADER + imports("evil:host/shell@1.0.0") + custom("pie:manifest", b"[grants]\nx = 1")
    assert (
        "its manifest: unknown key `x` in [grants]; allowed are memory_mb, cpu_s, http, tools, "
        "priority_max",
        "it imports `evil:host/shell@1.0.0`, which is not in the world",
        "it does not export `run`, the function that Pie calls",
    ) == checked(tmp_path, data).problems


def test_what_is_no_component_is_one_problem(tmp_path: Path) -> None:
    """Nothing else can be said about it."""
    assert ("the file is empty",) == checked(tmp_path, b"").problems


@pytest.mark.parametrize(
    ("name", "ok"),
    [
        ("pie:inferlet/models@0.1.0", True),
        ("pie:inferlet/models@0.1.3", True),
        ("pie:inferlet/models@0.1.4", False),
        ("pie:inferlet/models@0.2.0", False),
        ("pie:inferlet/other@0.1.0", False),
        ("wasi:io/streams@0.2.9", True),
        ("wasi:http/outgoing-handler@0.2.0", False),
        ("wasi:io/streams@0.3.0", False),
    ],
)
def test_versions_fit_within_a_minor_one(name: str, ok: bool) -> None:
    """A component may be older than the host in the last number only."""
    assert ok is (not foreign_imports((name,), WORLD))


def test_the_world_is_read_from_the_wit() -> None:
    """The single source; every interface of the world counts."""
    world = world_interfaces(sdk_folder() / "wit")
    assert "pie:inferlet/inference@0.1.0" in world
    assert 13 == len(world)
