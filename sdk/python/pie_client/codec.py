"""Messages to frames and back. No sockets here.

A message is two ZeroMQ frames: a head of 12 bytes (magic, protocol version, correlation id) and a
body, one msgpack map whose key `type` names the message.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from pie_client.wire import PROTOCOL_VERSION, AnyReply, AnyRequest, Reply, Request

MAGIC: Final = b"PIE"
HEAD: Final = struct.Struct(">3sBQ")

NOTICE: Final = 0
"""The correlation id of what is never answered."""

# An error quotes what the peer sent; without a cap the answer would be as large as he likes.
MAX_REASON_CHARS: Final = 300

_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_replies: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


class WireError(Exception):
    """Bytes that are no message. `correlation` is known as soon as the head was readable."""

    def __init__(
        self,
        code: str,
        message: str,
        correlation: int = NOTICE,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.correlation = correlation
        self.detail = detail or {}


def encode(message: Request | Reply, correlation: int = NOTICE) -> tuple[bytes, bytes]:
    """The two frames of a message."""
    return HEAD.pack(MAGIC, PROTOCOL_VERSION, correlation), _encoder.encode(message)


def decode_request(frames: Sequence[bytes | memoryview], max_bytes: int) -> tuple[int, AnyRequest]:
    """(correlation id, request); WireError for anything else."""
    correlation = _check_frames(frames, max_bytes)
    return correlation, _decode(_requests, frames[1], correlation)


def decode_reply(frames: Sequence[bytes | memoryview], max_bytes: int) -> tuple[int, AnyReply]:
    """(correlation id, reply or notice); WireError for anything else."""
    correlation = _check_frames(frames, max_bytes)
    return correlation, _decode(_replies, frames[1], correlation)


def unsupported_version(versions: Sequence[int], correlation: int) -> WireError:
    """The answer to a peer that speaks other versions only."""
    spoken = ", ".join(map(str, versions[:8]))
    return WireError(
        "unsupported",
        f"protocol version {spoken} is not spoken here; supported: {PROTOCOL_VERSION}",
        correlation,
        {"versions": [PROTOCOL_VERSION]},
    )


def _check_frames(frames: Sequence[bytes | memoryview], max_bytes: int) -> int:
    """The caps hold before anything is decoded; returns the correlation id of a sound head."""
    if len(frames) != 2:
        raise WireError("invalid-argument", f"a message has 2 frames, this one has {len(frames)}")
    head, body = frames
    if len(head) != HEAD.size or head[:3] != MAGIC:
        raise WireError("invalid-argument", f"the first frame is not a head of {HEAD.size} bytes")
    _, version, correlation = HEAD.unpack(head)
    if version != PROTOCOL_VERSION:
        raise unsupported_version([version], correlation)
    if len(body) > max_bytes:
        raise WireError(
            "invalid-argument",
            f"a body of {len(body)} bytes is over the limit of {max_bytes}",
            correlation,
            {"max_message_bytes": max_bytes},
        )
    return int(correlation)


def _decode(decoder: msgspec.msgpack.Decoder[_T], body: bytes | memoryview, correlation: int) -> _T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explain(str(error), correlation) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error)[:MAX_REASON_CHARS]
        raise WireError("invalid-argument", f"not msgpack: {reason}", correlation) from error


def _explain(reason: str, correlation: int) -> WireError:
    prefix, suffix = "Invalid value ", " - at `$.type`"
    if reason.startswith(prefix) and reason.endswith(suffix):
        name = reason[len(prefix) : -len(suffix)][:MAX_REASON_CHARS]
        return WireError("unsupported", f"unknown message type {name}", correlation)
    return WireError("invalid-argument", reason[:MAX_REASON_CHARS], correlation)
