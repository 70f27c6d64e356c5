"""Code in common: compiled once, and what runs with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from wasmtime import wat2wasm

from pie_daemon.errors import PieError
from pie_daemon.host.abi import Interface, build_linker
from pie_daemon.host.apart import take_apart
from pie_daemon.host.compile import compile_in_child
from pie_daemon.host.engine import Engine, load_component
from pie_daemon.host.guest import Guest
from pie_daemon.host.libraries import Libraries
from pie_daemon.host.run import run_component
from support.wat import with_library


def compiled(folder: Path, number: int) -> Path:
    """A program that tells the host its number, through a library that all of them have."""
    source = folder / f"{number}.wasm"
    source.write_bytes(wat2wasm(with_library(number)))
    compile_in_child(source, source.with_suffix(".cwasm"))
    return source.with_suffix(".cwasm")


def told(engine: Engine, libraries: Libraries, path: Path) -> list[int]:
    told: list[int] = []
    component = load_component(engine, path)
    interface = Interface("pie:test/x@0.1.0", {"tell": told.append})
    linker = build_linker(engine, [interface], component, libraries)
    assert run_component(engine, linker, component, Guest(), "x").kind == "ok"
    return told


def shared_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.cwasm") if not path.stem.isdigit()]


def test_programs_with_code_in_common_have_it_compiled_once(tmp_path: Path) -> None:
    first = compiled(tmp_path, 1)
    [shared] = shared_in(tmp_path)
    was = shared.stat()
    second = compiled(tmp_path, 2)
    assert [shared] == shared_in(tmp_path)
    assert was.st_ino == shared.stat().st_ino, "it was compiled again"
    engine = Engine()
    libraries = Libraries(engine, tmp_path)
    assert [1] == told(engine, libraries, first)
    assert [2] == told(engine, libraries, second)


def test_all_who_use_it_share_one_mapping(tmp_path: Path) -> None:
    compiled(tmp_path, 1)
    source = bytes(wat2wasm(with_library(1)))
    [name] = take_apart(source)[1]
    libraries = Libraries(Engine(), tmp_path)
    assert libraries.load(name) is libraries.load(name)


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_what_is_missing_is_an_error_and_compiled_again(tmp_path: Path, damage: str) -> None:
    path = compiled(tmp_path, 1)
    [shared] = shared_in(tmp_path)
    shared.unlink()
    if damage == "damaged":
        shared.write_bytes(b"nonsense")
    engine = Engine()
    with pytest.raises(PieError, match=shared.name) as caught:
        told(engine, Libraries(engine, tmp_path), path)
    assert caught.value.code == "internal"
    assert [1] == told(engine, Libraries(engine, tmp_path), compiled(tmp_path, 1))


def test_a_library_that_is_not_valid_is_the_component_s_fault(tmp_path: Path) -> None:
    source = tmp_path / "broken.wasm"
    data = bytearray(wat2wasm(with_library(1)))
    code = bytes.fromhex("01010101")  # a row of `nop`, within the library
    place = data.index(code * 64)
    data[place + 8] = 0xFF
    source.write_bytes(data)
    with pytest.raises(PieError, match="not a valid component") as caught:
        compile_in_child(source, tmp_path / "broken.cwasm")
    assert caught.value.code == "invalid-argument"
    assert [source] == list(tmp_path.iterdir())
