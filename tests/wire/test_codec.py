"""Decoding what is no message: a named error, whatever the bytes are."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_client import wire
from pie_client.codec import HEAD, MAGIC, NOTICE, WireError, decode_reply, decode_request, encode
from support.wire_samples import REPLIES, REQUESTS

LIMIT = 1 << 20
HEAD_7 = HEAD.pack(MAGIC, wire.PROTOCOL_VERSION, 7)


def refused(*frames: bytes, limit: int = LIMIT) -> WireError:
    with pytest.raises(WireError) as raised:
        decode_request(frames, limit)
    return raised.value


def body(**fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


def test_unknown_type_is_named() -> None:
    """A message type that does not exist is `unsupported`, by name, with the correlation id."""
    error = refused(HEAD_7, body(type="make-coffee"))
    assert (error.code, error.correlation) == ("unsupported", 7)
    assert error.message == "unknown message type 'make-coffee'"


def test_unknown_field_is_named() -> None:
    """A field that a request does not have is named."""
    error = refused(HEAD_7, body(type="ping", loudly=True))
    assert error.code == "invalid-argument"
    assert "unknown field `loudly`" in error.message
    nested = refused(HEAD_7, body(type="launch", program="x", budgets={"max_gpus": 1}))
    assert "unknown field `max_gpus` - at `$.budgets`" in nested.message


def test_replies_may_grow() -> None:
    """A client ignores fields of a newer daemon."""
    frames = [HEAD_7, body(type="pong", mood="good")]
    assert decode_reply(frames, LIMIT) == (7, wire.Pong())


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"type": "launch"}, "missing required field `program`"),
        ({"type": "launch", "program": ""}, "length >= 1 - at `$.program`"),
        ({"type": "launch", "program": "x" * 257}, "length <= 256 - at `$.program`"),
        ({"type": "attach", "instance": "i", "after": -1}, ">= 0 - at `$.after`"),
        ({"type": "attach", "instance": "i", "after": 2**64 - 1}, "at `$.after`"),
        ({"type": "attach", "instance": 5}, "Expected `str`, got `int` - at `$.instance`"),
        ({"type": "upload-begin", "size": 1, "sha256": "AB" * 32}, "at `$.sha256`"),
        ({"type": "hello", "versions": []}, "length >= 1 - at `$.versions`"),
        ({"program": "x"}, "missing required field `type`"),
    ],
)
def test_wrong_values_are_named(fields: dict[str, object], hint: str) -> None:
    """A value out of range or of the wrong type is named with its place."""
    error = refused(HEAD_7, body(**fields))
    assert (error.code, error.correlation) == ("invalid-argument", 7)
    assert hint in error.message


def test_caps_come_before_decoding() -> None:
    """The number and the size of frames are checked before anything else."""
    assert "2 frames, this one has 1" in refused(HEAD_7).message
    assert "2 frames, this one has 3" in refused(HEAD_7, b"", b"").message
    error = refused(HEAD_7, b"\xc1" * 101, limit=100)
    assert (error.correlation, error.detail) == (7, {"max_message_bytes": 100})
    assert "101 bytes is over the limit of 100" in error.message


@pytest.mark.parametrize("head", [b"", b"PIE", HEAD_7[:-1], HEAD_7 + b"x", b"PIG" + HEAD_7[3:]])
def test_a_bad_head_is_refused(head: bytes) -> None:
    """Without a sound head there is no correlation id to answer to."""
    assert refused(head, body(type="ping")).correlation == NOTICE


def test_another_version_is_told_which_are_spoken() -> None:
    """A head of another protocol version is answered with the versions that would do."""
    error = refused(HEAD.pack(MAGIC, 9, 7), b"")
    assert (error.code, error.correlation) == ("unsupported", 7)
    assert error.detail == {"versions": [wire.PROTOCOL_VERSION]}


def test_what_is_quoted_has_a_limit() -> None:
    """An error does not echo megabytes back."""
    assert len(refused(HEAD_7, body(type="x" * 100_000)).message) < 400
    assert len(refused(HEAD_7, body(type="ping", **{"y" * 100_000: 1})).message) < 400


def test_lying_lengths_cost_nothing() -> None:
    """A container that claims four billion elements is refused without being allocated."""
    for lie in (b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"):
        assert refused(HEAD_7, lie).code == "invalid-argument"
    versions = b"\x82\xa4type\xa5hello\xa8versions\xdd\xff\xff\xff\xff"
    assert "length <= 32 - at `$.versions`" in refused(HEAD_7, versions).message


def test_deep_nesting_is_refused() -> None:
    """Nesting as deep as a message is long ends in an error, not in a crash."""
    for deep in (b"\x91" * 500_000, b"\x81\xa4type" + b"\x91" * 500_000):
        assert refused(HEAD_7, deep).code == "invalid-argument"


@given(frames=st.lists(st.binary(max_size=64), max_size=4))
def test_random_frames(frames: list[bytes]) -> None:
    """Random frames give a WireError and nothing else."""
    with contextlib.suppress(WireError):
        decode_request(frames, LIMIT)
    with contextlib.suppress(WireError):
        decode_reply(frames, LIMIT)


@given(
    message=st.sampled_from([*REQUESTS, *REPLIES]),
    index=st.integers(0, 300),
    byte=st.integers(0, 255),
    length=st.integers(0, 400),
)
def test_mutated_messages(
    message: wire.Request | wire.Reply, index: int, byte: int, length: int
) -> None:
    """A message with one byte changed, or cut short, decodes or gives a WireError."""
    head, sound = encode(message, 1)
    mutated = bytearray(sound)
    mutated[index % len(mutated)] = byte
    for candidate in (bytes(mutated), sound[:length]):
        with contextlib.suppress(WireError):
            decode_request([head, candidate], LIMIT)
        with contextlib.suppress(WireError):
            decode_reply([head, candidate], LIMIT)
