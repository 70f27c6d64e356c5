"""Every kind of value crosses the border unchanged, in both directions."""

from __future__ import annotations

import ctypes
import json
from array import array
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import component as c

from pie_daemon.host import ffi
from pie_daemon.host.abi_base import SCALARS, AbiError, Converter
from pie_daemon.host.abi_lists import (
    bytes_converter,
    list_converter,
    number_list_converter,
    tuple_converter,
)
from pie_daemon.host.abi_variants import (
    enum_converter,
    flags_converter,
    option_converter,
    record_converter,
    result_converter,
    variant_converter,
)
from support.guest_host import ECHOES, Sandbox, TestGuest

U32, F32, STRING = SCALARS[c.U32], SCALARS[c.F32], SCALARS[c.String]
POINT = record_converter([("x", F32), ("class", STRING)])


def across(converter: Converter, value: Any) -> Any:
    """Lowers a value into the C API's memory and lifts it again."""
    memory = ctypes.create_string_buffer(ffi.VAL_SIZE)
    address = ctypes.addressof(memory)
    try:
        converter.lower(value, address, 0)
        return converter.lift(address, 0)
    finally:
        ffi.val_delete(address)


def test_every_type_round_trips_through_a_program(sandbox: Sandbox) -> None:
    """What the program sent comes back equal, and the host saw the documented Python shapes."""
    guest = TestGuest()
    outcome = sandbox.run("echo-all", 1, guest=guest)
    assert outcome.kind == "ok", outcome.text
    assert len(json.loads(outcome.text)) == len(ECHOES)
    seen = guest.seen
    assert seen["u64s"] == [0, 2**64 - 1]
    assert seen["s64s"] == [-(2**63), 2**63 - 1]
    assert seen["chars"] == ["a", "é", "😀"]
    assert seen["strings"][2] == "naïve 😀 \0 end"
    assert seen["blobs"][1] == bytes(range(256)) * 40
    assert seen["tokens"][2] == list(range(5000))
    assert seen["pairs"][1] == [(1, "one"), (2, "")]
    assert seen["points"][0] == (0.5, "p")
    assert seen["points"][0].class_ == "p"
    assert seen["chunks"][1]._asdict() == {
        "tokens": [1, 2, 3],
        "text": "abc",
        "logprobs": [(1, 0.5), (2, -0.5)],
    }
    assert seen["shapes"][1] == [
        ("circle", 1.5),
        ("named", "n"),
        ("at", (1.0, "t")),
        ("nothing", None),
    ]
    assert seen["colors"] == ["red", "dark-green"]
    assert seen["permissions"] == [frozenset(), frozenset({"read", "write-all"})]
    assert seen["maybe"] == [None, "", "some"]
    assert seen["outcomes"][0] == [None, ("ok", "fine"), ("err", ("busy", "later"))]


def test_arguments_keep_their_order(sandbox: Sandbox) -> None:
    """A function of five parameters of different sizes gets each in its place."""
    outcome = sandbox.run("many")
    assert json.loads(json.loads(outcome.text)) == [1, "two", 3, [4, 5], True]


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_numbers_cross_in_bulk(numbers: list[int]) -> None:
    """A list of u32 is equal after crossing, also when handed over as an array."""
    converter = number_list_converter(c.U32)
    assert across(converter, numbers) == numbers
    assert across(converter, array("I", numbers)) == numbers


@pytest.mark.parametrize("size", [4095, 4096, 4097, 10_001])
def test_many_bytes_cross_in_parts(size: int) -> None:
    """Long list<u8> are equal after crossing, whatever their length."""
    data = bytes(at * 7 % 251 for at in range(size))
    assert across(bytes_converter(), data) == data
    assert across(bytes_converter(), memoryview(data)) == data


@given(st.binary())
def test_bytes_cross_in_bulk(data: bytes) -> None:
    """list<u8> is bytes, and any bytes-like object may be handed over."""
    assert across(bytes_converter(), data) == data
    assert across(bytes_converter(), bytearray(data)) == data


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.text(st.characters(codec="utf-8")))))
@settings(max_examples=50)
def test_nested_lists_cross(pairs: list[tuple[int, str]]) -> None:
    """Lists of tuples of numbers and text are equal after crossing."""
    assert across(list_converter(tuple_converter([U32, STRING])), pairs) == pairs


@pytest.mark.parametrize(
    "value",
    [{"x": 1.5, "class_": "a"}, SimpleNamespace(x=1.5, class_="a")],
)
def test_records_come_from_mappings_and_objects(value: Any) -> None:
    """Fields are found by their Python names, keywords with an underscore."""
    assert across(POINT, value) == (1.5, "a")


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    """Text that UTF-8 cannot carry crosses with a replacement instead of ending the program."""
    assert across(STRING, "a\ud800b") == "a?b"


REFUSED: list[tuple[Converter, Any]] = [
    (U32, -1),
    (U32, 1 << 32),
    (U32, "1"),
    (U32, None),
    (SCALARS[c.S8], 128),
    (STRING, 5),
    (F32, "x"),
    (bytes_converter(), "text"),
    (number_list_converter(c.U32), [1, -1]),
    (number_list_converter(c.U32), ["a"]),
    (list_converter(STRING), ["fine", 5]),
    (tuple_converter([U32, STRING]), (1,)),
    (tuple_converter([U32, STRING]), (1, 2)),
    (POINT, {"x": 1.0}),
    (POINT, object()),
    (variant_converter([("a", None)]), ("b", None)),
    (variant_converter([("a", U32)]), ("a", "text")),
    (enum_converter(["a"]), "b"),
    (flags_converter(["a"]), {"b"}),
    (option_converter(U32), "text"),
    (result_converter(U32, STRING), ("ok", "text")),
    (result_converter(None, STRING), ("ok", 1)),
]


@pytest.mark.parametrize(("converter", "value"), REFUSED)
def test_a_value_of_the_wrong_type_is_refused(converter: Converter, value: Any) -> None:
    """A wrong value raises; what was already written is freed with its parent."""
    with pytest.raises((AbiError, TypeError)):
        across(converter, value)


def test_a_variant_without_payload_may_be_a_plain_string() -> None:
    """`"nothing"` is short for `("nothing", None)`."""
    converter = variant_converter([("nothing", None), ("some", U32)])
    assert across(converter, "nothing") == ("nothing", None)
    assert across(converter, ("some", 4)) == ("some", 4)
