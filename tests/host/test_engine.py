"""The engine: compiling apart, loading from a cache, who is current."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from pie_daemon.errors import PieError
from pie_daemon.host.abi import Interface, build_linker
from pie_daemon.host.compile import compile_in_child
from pie_daemon.host.engine import Engine, cache_key, load_component
from pie_daemon.host.guest import Guest, current
from pie_daemon.host.run import run_component
from support.guest_host import wat_sandbox
from support.wat import importing

COMPONENT = importing("pie:test/x@0.1.0")


def test_compiled_in_a_child_and_loaded_here(tmp_path: Path) -> None:
    """The child's machine code runs in this process; nothing else is left beside it."""
    source, target = tmp_path / "x.wasm", tmp_path / "x.cwasm"
    source.write_bytes(wat2wasm(COMPONENT))
    compile_in_child(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.cwasm", "x.wasm"]
    engine = Engine()
    component = load_component(engine, target)
    calls: list[str] = []
    interface = Interface("pie:test/x@0.1.0", {"f": lambda: calls.append("called")})
    linker = build_linker(engine, [interface], component)
    assert run_component(engine, linker, component, Guest(), "x").kind == "ok"
    assert calls == ["called"]


def test_a_broken_file_is_refused_by_the_child(tmp_path: Path) -> None:
    """The reason crosses the process border; no target appears."""
    source, target = tmp_path / "x.wasm", tmp_path / "x.cwasm"
    source.write_bytes(bytes(wat2wasm(COMPONENT))[:-7])
    with pytest.raises(PieError, match="cut short") as caught:
        compile_in_child(source, target)
    assert caught.value.code == "invalid-argument"
    assert not target.exists()


def test_a_missing_file_is_an_internal_error(tmp_path: Path) -> None:
    """A defect of the caller is not blamed on the component."""
    with pytest.raises(PieError) as caught:
        compile_in_child(tmp_path / "absent", tmp_path / "x.cwasm")
    assert caught.value.code == "internal"


def test_a_damaged_cache_file_is_an_error(tmp_path: Path) -> None:
    """What is no machine code of this engine is refused, not run."""
    path = tmp_path / "x.cwasm"
    path.write_bytes(b"nonsense")
    with pytest.raises(PieError, match=r"x\.cwasm"):
        load_component(Engine(), path)


def test_the_cache_key_changes_with_the_content() -> None:
    """Two contents never share machine code, and a key is stable."""
    assert cache_key("a") == cache_key("a") != cache_key("b")


def test_a_program_finds_only_its_own_guest() -> None:
    """Two programs on two threads each see themselves, and nobody is current outside."""
    found: dict[str, Guest] = {}
    both = threading.Barrier(2, timeout=30)

    def function() -> None:
        both.wait()
        found[current().arguments[0]] = current()
        both.wait()

    sandbox = wat_sandbox(COMPONENT, Interface("pie:test/x@0.1.0", {"f": function}))
    guests = [Guest(arguments=(name,)) for name in ("a", "b")]
    threads = [
        threading.Thread(target=lambda guest=guest: sandbox.run("x", guest=guest))
        for guest in guests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {"a": guests[0], "b": guests[1]}
    with pytest.raises(RuntimeError, match="no component runs"):
        current()
