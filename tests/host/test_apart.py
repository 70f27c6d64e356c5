"""Taking a component apart: which code others may have too, and that the rest stays what it was."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import Module, WasmtimeError, wat2wasm
from wasmtime.component import Component

from pie_bakery.component import ComponentError, parse
from pie_daemon.host.apart import is_library, take_apart
from pie_daemon.host.engine import Engine
from support.wat import FILLING, with_library

ENGINE = Engine()

PARTS = {
    "nothing more": "",
    "a memory": '(import "env" "memory" (memory 1 7)) (memory (export "m") 2)',
    "tables": '(import "env" "table" (table 1 9 funcref)) (table (export "t") 3 externref)',
    "globals": '(import "env" "base" (global $base i32)) (export "sum" (global $sum))'
    "(global $sum i32 (i32.add (global.get $base) (i32.const 70000)))"
    '(global (export "g") (mut f64) (f64.const 1)) (global f32 (f32.const 2))'
    "(global funcref (ref.null func))",
    "every type of number": '(func (export "n") (param i32 i64 f32 f64 v128 funcref externref)'
    " (result i64) (i64.const 0))",
    "an exception": '(tag (export "e") (param i32))',
    "a table of 64 bits": '(table (export "t") i64 1 funcref)',
}
STAY = {
    "data": '(memory 1) (data (i32.const 0) "its own")',
    "a reference to a type": '(type $f (func)) (func (export "r") (param (ref null $f)))',
    "types in groups": "(rec (type $a (struct)) (type (struct))) (func (param (ref null $a)))",
    "a table that is filled": "(func $f) (table 1 (ref func) (ref.func $f))",
}


def library(parts: str) -> str:
    return f"(core module $library {parts} {FILLING})"


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_code_alone_becomes_an_import(parts: str) -> None:
    """The compiler finds the declared type to be the module's: it takes the same exports of it."""
    data = bytes(wat2wasm(f"(component {library(parts)})"))
    own, libraries = take_apart(data)
    [(name, code)] = libraries.items()
    assert is_library(name)
    assert (name,) == parse(own).imports
    assert name.endswith(hashlib.sha256(code).hexdigest())
    assert len(own) < 2000 < len(code)
    Module(ENGINE.stock, code)
    Component(ENGINE.stock, own)


@pytest.mark.parametrize("parts", STAY.values(), ids=STAY)
def test_what_has_data_or_is_not_understood_stays(parts: str) -> None:
    data = bytes(wat2wasm(f"(component {library(parts)})"))
    assert (data, {}) == take_apart(data)


def test_small_modules_stay() -> None:
    data = bytes(wat2wasm('(component (core module (func (export "f"))))'))
    assert (data, {}) == take_apart(data)


def test_a_library_that_occurs_twice_is_taken_once() -> None:
    twice = 2 * library("").replace("$library", "")
    data = bytes(wat2wasm(f"(component {twice})"))
    own, libraries = take_apart(data)
    assert 1 == len(libraries)
    assert len(data) / 2 < len(own) < len(data)


def test_a_component_with_types_of_core_modules_stays() -> None:
    """They are numbered, and those of libraries would come between."""
    typed = '(core type (module (import "a" "b" (func))))'
    data = bytes(wat2wasm(f"(component {typed} {library('')})"))
    assert (data, {}) == take_apart(data)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0), st.integers(1, 255))
def test_damage_is_left_to_the_compiler(place: int, change: int) -> None:
    """Whatever byte is another one: an error of the outline, or something that may be compiled."""
    data = bytearray(wat2wasm(with_library(7)))
    place = 8 + place % 400
    data[place] ^= change
    try:
        own, libraries = take_apart(bytes(data))
    except ComponentError:
        return
    for code in libraries.values():
        assert code in bytes(data)
    try:
        Component(ENGINE.stock, own)
    except (WasmtimeError, UnicodeDecodeError):
        return
