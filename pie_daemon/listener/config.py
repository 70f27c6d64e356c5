"""The `listener` section of the configuration: meaning, unit, default and class of every key."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_LIVE = {"class": "live"}
_RESTART = {"class": "restart"}


class ListenerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where clients reach the daemon and what one client may take."""

    endpoints: Annotated[
        tuple[str, ...],
        Meta(
            extra=_RESTART,
            description="ZeroMQ endpoints: `ipc:///path` or `tcp://host:port`. Empty: "
            "`pie.sock` in the runtime directory, which only this user (and root) can use.",
        ),
    ] = ()
    insecure: Annotated[
        bool,
        Meta(
            extra=_RESTART,
            description="Allow tcp endpoints that other machines can reach, although tcp has "
            "neither encryption nor authentication. Off: tcp only on loopback addresses.",
        ),
    ] = False
    max_message_bytes: Annotated[
        int,
        Meta(
            ge=64 * 1024,
            le=1024**3,
            extra=_RESTART,
            description="Largest single message, bytes. A peer that sends more is disconnected; "
            "larger things travel in chunks.",
        ),
    ] = 4 * 1024 * 1024
    chunk_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            le=16 * 1024 * 1024,
            extra=_LIVE,
            description="Piece of an upload, and of an event that is larger, bytes. Small enough "
            "that a chunk does not hold up a neighbour's token.",
        ),
    ] = 256 * 1024
    upload_credit: Annotated[
        int,
        Meta(ge=1, le=64, extra=_LIVE, description="Chunks a client may have unanswered."),
    ] = 8
    max_blob_bytes: Annotated[
        int,
        Meta(
            ge=1,
            extra=_LIVE,
            description="Largest blob for an instance, bytes; the program holds it in memory.",
        ),
    ] = 64 * 1024 * 1024
    max_uploads: Annotated[
        int, Meta(ge=1, extra=_LIVE, description="Unfinished uploads of one user.")
    ] = 16
    upload_expiry_s: Annotated[
        float,
        Meta(
            gt=0,
            extra=_LIVE,
            description="An unfinished upload can be resumed this long after its last chunk, "
            "seconds.",
        ),
    ] = 3600.0
    heartbeat_s: Annotated[
        float,
        Meta(
            gt=0,
            extra=_RESTART,
            description="A side that has heard nothing for this long asks whether the other is "
            "still there, seconds.",
        ),
    ] = 2.0
    timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            extra=_LIVE,
            description="A client silent for this long is gone, seconds. Several heartbeats, so "
            "that one lost in a busy moment costs nothing.",
        ),
    ] = 15.0
    grace_s: Annotated[
        float,
        Meta(
            ge=0,
            extra=_LIVE,
            description="Instances of a client that vanished are cancelled unless somebody "
            "attaches within this time, seconds. Detached instances go on.",
        ),
    ] = 10.0
    event_window_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            extra=_LIVE,
            description="Events of one instance on their way to one client, unacknowledged, "
            "bytes. Beyond it the client's pace slows the program.",
        ),
    ] = 256 * 1024
    max_sessions: Annotated[
        int, Meta(ge=1, extra=_LIVE, description="Clients connected at a time.")
    ] = 1024
    max_requests: Annotated[
        int, Meta(ge=1, extra=_LIVE, description="Unanswered requests of one client.")
    ] = 256
    max_request_bytes: Annotated[
        int,
        Meta(
            ge=1024 * 1024,
            extra=_LIVE,
            description="Bytes in the unanswered requests of one client; beyond it: `busy`.",
        ),
    ] = 32 * 1024 * 1024
    max_outbox_bytes: Annotated[
        int,
        Meta(
            ge=1024 * 1024,
            extra=_LIVE,
            description="Answers kept for a client that does not read them, bytes; beyond it the "
            "client is dropped.",
        ),
    ] = 16 * 1024 * 1024


class AuthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may use the daemon through its ipc endpoints. The kernel tells who connects."""

    allow_users: Annotated[
        tuple[str, ...],
        Meta(
            extra=_RESTART,
            description="Local users, by name or uid, who may launch programs beside root and "
            "the daemon's own user; they see their own programs only. Not empty: the socket and "
            "its directory can be reached by every local user, and everybody else is refused.",
        ),
    ] = ()
