"""What a component may import, by name and version."""

from __future__ import annotations

from pathlib import Path

import pytest
from wasmtime import wat2wasm
from wasmtime.component import Component

from pie_bakery.component import parse
from pie_daemon.errors import PieError
from pie_daemon.host import wasi
from pie_daemon.host.abi import Interface, build_linker, unknown_imports
from pie_daemon.host.abi_versions import satisfies
from pie_daemon.host.apart import is_library
from pie_daemon.host.compile import compile_component
from pie_daemon.host.engine import Engine
from pie_daemon.host.libraries import Libraries
from support.guest_host import HOST, Sandbox, wat_sandbox
from support.guests import GUEST, build_guest
from support.wat import importing


def compiled_in(folder: Path, data: bytes) -> bytes:
    engine = Engine()
    return compile_component(engine, Libraries(engine, folder), data)


def call(offered: str, imported: str) -> str:
    """The kind of outcome when a host offers one interface and a component imports another."""
    calls: list[None] = []
    sandbox = wat_sandbox(
        importing(imported), Interface(offered, {"f": lambda: calls.append(None)})
    )
    outcome = sandbox.run("x")
    assert len(calls) == (outcome.kind == "ok")
    return outcome.kind


@pytest.mark.parametrize(
    ("offered", "imported"),
    [
        ("pie:inferlet/x@0.1.0", "pie:inferlet/x@0.1.0"),
        ("pie:inferlet/x@0.1.1", "pie:inferlet/x@0.1.0"),
        ("pie:inferlet/x@0.1.0", "pie:inferlet/x@0.1.1"),
        ("wasi:io/poll@0.2.0", "wasi:io/poll@0.2.9"),
        ("pie:inferlet/x@1.4.0", "pie:inferlet/x@1.2.7"),
        ("pie:inferlet/x", "pie:inferlet/x"),
    ],
)
def test_compatible_versions_link_and_run(offered: str, imported: str) -> None:
    """Another patch version is the same interface."""
    assert call(offered, imported) == "ok"


@pytest.mark.parametrize(
    ("offered", "imported"),
    [
        ("pie:inferlet/x@0.2.0", "pie:inferlet/x@0.1.0"),
        ("pie:inferlet/x@0.1.0", "pie:inferlet/x@0.2.0"),
        ("pie:inferlet/x@2.0.0", "pie:inferlet/x@1.0.0"),
        ("pie:inferlet/x@0.1.0", "pie:inferlet/y@0.1.0"),
        ("pie:inferlet/x@0.1.0", "pie:inferlet/x"),
    ],
)
def test_incompatible_versions_are_refused_by_name(offered: str, imported: str) -> None:
    """A component linked against 0.1.0 does not run on a 0.2.0 host, and the error names it."""
    assert not satisfies(offered, imported)
    with pytest.raises(PieError, match=imported) as caught:
        call(offered, imported)
    assert caught.value.code == "invalid-argument"


def test_every_unknown_import_is_named(sandbox: Sandbox) -> None:
    """Interfaces, functions and resources that are missing are all listed at once."""
    partial = Interface(
        HOST.name,
        {name: f for name, f in HOST.functions.items() if name not in ("sum", "next")},
    )
    offered = [partial, *(one for one in wasi.INTERFACES if "random/random" not in one.name)]
    with pytest.raises(PieError) as caught:
        build_linker(sandbox.engine, offered, sandbox.component)
    for missing in ("#sum", "#next", "host@0.1.0#counter", "wasi:random/random@"):
        assert missing in caught.value.message
    assert "#checked" not in caught.value.message


def test_a_newer_function_is_named(sandbox: Sandbox) -> None:
    """A component built against a later patch that uses a new function is told which."""
    with pytest.raises(PieError, match=r"pie:inferlet/x@0\.1\.1#new-one"):
        wat_sandbox(
            importing("pie:inferlet/x@0.1.1", "new-one"),
            Interface("pie:inferlet/x@0.1.0", {"f": lambda: None}),
        )


def test_an_interface_of_types_needs_no_host() -> None:
    """Importing only type definitions asks for nothing."""
    sandbox = wat_sandbox(
        """(component (import "pie:test/types@0.1.0" (instance
             (type $u u32) (export "token" (type (eq $u))))))"""
    )
    assert sandbox.run("x").text == "the component does not export `run`"


def test_names_are_read_without_compiling(sandbox: Sandbox) -> None:
    """The quick reader lists what the compiled component lists, but for its libraries."""
    names = parse(build_guest(GUEST).read_bytes())
    compiled = sandbox.component.type.imports(sandbox.engine.stock)
    assert sorted(names.imports) == sorted(name for name in compiled if not is_library(name))
    assert "run" in names.exports
    assert unknown_imports(names.imports, [HOST, *wasi.INTERFACES]) == []
    assert unknown_imports(names.imports, wasi.INTERFACES) == [HOST.name]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"#!/bin/sh\n", "not a WebAssembly component"),
        (bytes(wat2wasm("(module)")), "core WebAssembly module"),
        (b"\0asm\x99\0\x01\0", "not a WebAssembly component"),
        (bytes(wat2wasm(importing("pie:test/x@0.1.0")))[:-10], "cut short"),
        (bytes(wat2wasm(importing("pie:test/x@0.1.0")))[:60], "cut short"),
    ],
)
def test_what_is_no_component_is_refused_with_a_reason(
    data: bytes, message: str, tmp_path: Path
) -> None:
    """Every kind of broken file says what is wrong with it, before and instead of compiling."""
    with pytest.raises(PieError, match=message) as caught:
        compiled_in(tmp_path, data)
    assert caught.value.code == "invalid-argument"


def test_a_component_that_does_not_validate_is_refused(tmp_path: Path) -> None:
    """Well-formed on the outside, nonsense inside."""
    data = bytearray(wat2wasm(importing("pie:test/x@0.1.0")))
    data[data.index(b"\0asm", 8) + 9] ^= 0x7F
    with pytest.raises(PieError) as caught:
        compiled_in(tmp_path, bytes(data))
    assert caught.value.code == "invalid-argument"


def test_a_linker_serves_another_compile_of_the_same_component() -> None:
    """One linker may instantiate any component whose imports it defines."""
    text = importing("pie:test/x@0.1.0")
    sandbox = wat_sandbox(text, Interface("pie:test/x@0.1.0", {"f": lambda: None}))
    again = Sandbox(sandbox.engine, Component(sandbox.engine.stock, text), sandbox.linker)
    assert again.run("x").kind == sandbox.run("x").kind == "ok"
