"""The outline of a component binary, and everything a damaged one can do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pie_bakery.component import (
    ComponentError,
    parse,
    read_component,
    with_custom_section,
)
from support.components import HEADER, RUN, custom, exports, imports, section

WHOLE = (
    HEADER
    + section(1, b"x" * 300)
    + imports("pie:inferlet/models@0.1.0", "wasi:io/poll@0.2.9")
    + exports(("inner", b"\x05\x00"), RUN)
    + custom("pie:manifest", b"[inferlet]")
)


def test_the_outline_is_read() -> None:
    """Imports, exports and custom sections by name; everything else is passed over."""
    outline = parse(WHOLE)
    assert ("pie:inferlet/models@0.1.0", "wasi:io/poll@0.2.9") == outline.imports
    assert ("inner", "run") == outline.exports
    assert (b"[inferlet]", len(WHOLE)) == (outline.manifest, outline.size_bytes)


def test_imports_and_exports_of_every_kind_are_passed_over() -> None:
    """Core modules, functions, values, types, components, instances, with and without a type."""
    kinds = [b"\x00\x11\x07", b"\x01\x07", b"\x02\x00\x07", b"\x02\x01\x07"]
    kinds += [b"\x03\x00\x07", b"\x03\x01", b"\x04\x07", b"\x05\x87\x01"]
    content = bytes([len(kinds)]) + b"".join(b"\x01\x01" + b"a" + kind for kind in kinds)
    outward = b"\x02\x00\x01b\x00\x11\x00\x01\x00\x11\x07" + b"\x00\x01c\x01\x00\x00"
    outline = parse(HEADER + section(10, content) + section(11, outward))
    assert (("a",) * 8, ("b", "c")) == (outline.imports, outline.exports)


def test_a_component_without_a_manifest_has_an_empty_one() -> None:
    """The rest of Pie need not ask."""
    assert b"" == parse(HEADER).manifest


def test_a_custom_section_replaces_its_predecessor() -> None:
    """Building twice leaves one manifest; the rest of the file stays as it was."""
    once = with_custom_section(WHOLE, "pie:manifest", b"new")
    assert b"new" == parse(once).manifest
    assert once == with_custom_section(once, "pie:manifest", b"new")
    assert once.startswith(WHOLE[: WHOLE.index(b"\x00\x17\x0cpie")])


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "the file is empty"),
        (b"GIF89a--", "not a WebAssembly component"),
        (b"\0asm\x0e\x00\x01\x00", "not a WebAssembly component"),
        (b"\0asm\x01\x00\x00\x00", "core WebAssembly module"),
        (HEADER + b"\x01\xff\xff\xff\xff\xff\xff", "longer than 32 bits"),
        (HEADER + section(10, b"\x01\x07\x01a"), "unknown kind"),
        (HEADER + section(10, b"\x01\x00\x01a\x09\x00"), "unknown kind"),
        (HEADER + section(10, b"\x01\x00\x09a"), "runs past its section"),
        (HEADER + section(10, b"\x01\x00\x01\xff\x05\x00"), "not UTF-8"),
        (WHOLE + custom("pie:manifest", b""), "occurs twice"),
        (WHOLE[:-1], "cut short: a section at byte"),
    ],
)
def test_what_is_no_component_says_what_it_is(data: bytes, match: str) -> None:
    """Each kind of damage in words."""
    with pytest.raises(ComponentError, match=match):
        parse(data)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_cut_file_is_never_taken_for_a_whole_one(length: int) -> None:
    """At any length it is refused, or is a shorter component without its manifest."""
    try:
        assert b"" == parse(WHOLE[:length]).manifest
    except ComponentError:
        pass


@given(st.binary(max_size=64))
@example(b"\x0a\x01\x05")
def test_arbitrary_bytes_are_refused_in_one_way(tail: bytes) -> None:
    """Whatever follows the header, the answer is an outline or `ComponentError`."""
    try:
        parse(HEADER + tail)
    except ComponentError:
        pass


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    """The form that the daemon uses."""
    path = tmp_path / "a.wasm"
    path.write_bytes(WHOLE)
    assert parse(WHOLE) == read_component(path)
