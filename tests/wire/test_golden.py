"""The bytes of every message, which clients in other languages read and write as well."""

from __future__ import annotations

from typing import get_args

import pytest

from pie_client import wire
from pie_client.codec import decode_reply, decode_request
from support.wire_samples import CORRELATION, GOLDEN, REPLIES, REQUESTS, golden_text, tag

LIMIT = wire.MAX_MESSAGE_BYTES


def read(message: wire.Request | wire.Reply) -> list[bytes]:
    return [bytes.fromhex(line) for line in (GOLDEN / f"{tag(message)}.hex").read_text().split()]


def test_every_message_has_a_sample_and_a_file() -> None:
    """No message exists without its golden bytes, and no file without its message."""
    assert {type(message) for message in REQUESTS} == set(get_args(wire.AnyRequest))
    assert {type(message) for message in REPLIES} == set(get_args(wire.AnyReply))
    names = {tag(message) for message in (*REQUESTS, *REPLIES)}
    assert len(names) == len(REQUESTS) + len(REPLIES)
    assert {path.stem for path in GOLDEN.glob("*.hex")} == names


@pytest.mark.parametrize("message", [*REQUESTS, *REPLIES], ids=tag)
def test_encoding_gives_the_golden_bytes(message: wire.Request | wire.Reply) -> None:
    """Encoding a message gives the bytes that were released."""
    assert golden_text(message) == (GOLDEN / f"{tag(message)}.hex").read_text()


@pytest.mark.parametrize("message", REQUESTS, ids=tag)
def test_golden_requests_decode(message: wire.Request) -> None:
    """The released bytes of a request still mean the same."""
    assert decode_request(read(message), LIMIT) == (CORRELATION, message)


@pytest.mark.parametrize("message", REPLIES, ids=tag)
def test_golden_replies_decode(message: wire.Reply) -> None:
    """The released bytes of a reply still mean the same."""
    assert decode_reply(read(message), LIMIT) == (CORRELATION, message)
