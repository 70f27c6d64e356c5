"""Settings of the runtime, and the limits that every program runs under."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pie_bakery.manifest import HostRule, ToolRule
from pie_daemon.settings import Amount, Count, Seconds, setting

CrossingBytes = Annotated[int, msgspec.Meta(ge=1, le=3 << 20)]
"""The sandbox ends a call that carries more than 4 MiB across its border."""


class RuntimeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How programs are compiled, run and ended."""

    drain_s: Annotated[
        Seconds,
        setting(
            "How long running programs may go on after the daemon was asked to stop",
            unit="s",
            reload="live",
            why="shorter than TimeoutStopSec of the systemd unit, so that the end is orderly",
        ),
    ] = 20.0
    compile_timeout_s: Annotated[
        Seconds,
        setting(
            "How long compiling one component may take before it is rejected",
            unit="s",
            reload="live",
            why="twenty times what a CPython component needs on two slow cores",
        ),
    ] = 120.0
    keep_finished_s: Annotated[
        Seconds,
        setting(
            "How long the events and the outcome of a finished program wait for its client",
            unit="s",
            reload="live",
            why="long enough for a client to come back after a lost connection",
        ),
    ] = 600.0


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one program, one client or the whole daemon may use at most."""

    instances: Annotated[
        Count,
        setting(
            "The most programs that run at the same time",
            unit="programs",
            reload="live",
            why="a thread and some megabytes each; 2048 Python programs need about 12 GiB",
        ),
    ] = 2048
    memory_mb: Annotated[
        Count,
        setting(
            "Linear memory of one program; its manifest may ask for less",
            unit="MiB",
            reload="live",
            why="CPython starts in about 30 MiB; this leaves room for data, not for leaks",
        ),
    ] = 256
    cpu_s: Annotated[
        Seconds | None,
        setting(
            "CPU time of one program; its manifest or its launch may ask for less; null: no limit",
            unit="s",
            reload="live",
            why="waiting for the model costs no CPU time, so an honest agent stays far below",
        ),
    ] = 600.0
    event_bytes: Annotated[
        Count,
        setting(
            "Output of one program that its client has not acknowledged yet; "
            "beyond it the program waits in send",
            unit="bytes",
            reload="live",
            why="seconds of token deltas, and still little when a thousand clients stall",
        ),
    ] = 1 << 20
    send_stall_s: Annotated[
        Seconds,
        setting(
            "How long a program waits in send for a slow client before it gets `exhausted`",
            unit="s",
            reload="live",
            why="survives a client that reconnects",
        ),
    ] = 30.0
    upload_bytes: Annotated[
        Count,
        setting(
            "The largest component that is accepted, by upload or from the inferlet folder",
            unit="bytes",
            reload="live",
            why="three times a CPython component with a few libraries",
        ),
    ] = 64 << 20
    inbox_bytes: Annotated[
        Count,
        setting(
            "Messages to one program that it has not received yet; beyond it senders are refused",
            unit="bytes",
            reload="live",
            why="as much as the other direction",
        ),
    ] = 1 << 20
    storage_key_bytes: Annotated[
        Count,
        setting(
            "The longest key that a program may store under",
            unit="bytes",
            reload="live",
            why="a path or a hash; what is longer belongs into a value",
        ),
    ] = 1024
    storage_value_bytes: Annotated[
        Count,
        setting(
            "The largest value that a program may store",
            unit="bytes",
            reload="live",
            why="a transcript fits, and none holds up the writes of others",
        ),
    ] = 1 << 20
    storage_user_bytes: Annotated[
        Count,
        setting(
            "All pairs that the programs of one user store together",
            unit="bytes",
            reload="live",
            why="room for notes of thousands of runs, not for a file server",
        ),
    ] = 64 << 20
    storage_list_keys: Annotated[
        Count,
        setting(
            "The most keys that one call may list",
            unit="keys",
            reload="live",
            why="a millisecond of work while others read",
        ),
    ] = 10_000
    saved_contexts: Annotated[
        Count,
        setting(
            "Contexts that the programs of one user have saved at a time",
            unit="contexts",
            reload="live",
            why="a conversation each; beyond it something saves without ever deleting",
        ),
    ] = 256
    saved_tokens: Annotated[
        Count,
        setting(
            "Tokens in all of them together",
            unit="tokens",
            reload="live",
            why="16 MiB of memory or disk, since only tokens are kept and not their KV",
        ),
    ] = 4 << 20
    saved_page_bytes: Annotated[
        Amount,
        setting(
            "KV pages that are kept on disk beside the durable contexts of one user; "
            "those beyond are computed again when they are needed",
            unit="bytes",
            reload="live",
            why="80,000 tokens of a model with 88 million parameters; reading is a hundred times "
            "cheaper than computing",
        ),
    ] = 1 << 30
    priority_max: Annotated[
        Amount,
        setting(
            "Programs may give a context a priority from its negative up to this; "
            "their manifest may ask for less",
            reload="live",
            why="a few levels are all that helps, since they only order the work of one launch",
        ),
    ] = 8
    topic_messages: Annotated[
        Count,
        setting(
            "Messages that wait in one queue, or for one listener",
            unit="messages",
            reload="live",
            why="a burst fits; a thousand behind is not catching up",
        ),
    ] = 1024
    topic_bytes: Annotated[
        Count,
        setting(
            "The same in bytes",
            unit="bytes",
            reload="live",
            why="as much as a client may leave unread",
        ),
    ] = 1 << 20
    messaging_bytes: Annotated[
        Count,
        setting(
            "Messages that wait in all queues and for all listeners of one user",
            unit="bytes",
            reload="live",
            why="sixteen full queues; they are held in memory",
        ),
    ] = 16 << 20
    constraints: Annotated[
        Count,
        setting(
            "Constraints that one program holds at a time",
            unit="constraints",
            reload="live",
            why="one for every branch of a wide search; each takes some kilobytes of the host",
        ),
    ] = 1024
    constraint_bytes: Annotated[
        Count,
        setting(
            "The longest schema, regex or grammar that a program may constrain with",
            unit="bytes",
            reload="live",
            why="a schema of a thousand properties fits, and compiles in less than a second",
        ),
    ] = 256 << 10
    constraint_compile_s: Annotated[
        Seconds,
        setting(
            "How long a program waits for a constraint to compile before it gets `timeout`",
            unit="s",
            reload="live",
            why="ten times what the largest schemas that people write take on a slow core",
        ),
    ] = 10.0
    children: Annotated[
        Count,
        setting(
            "Programs that run below one launch of a client, at any depth",
            unit="programs",
            reload="live",
            why="more than can generate well together; far below what all users share",
        ),
    ] = 64
    child_depth: Annotated[
        Count,
        setting(
            "How deep programs may launch programs that launch programs",
            unit="launches",
            reload="live",
            why="a tree of agents, not a runaway recursion",
        ),
    ] = 4
    http_hosts: Annotated[
        tuple[HostRule, ...],
        setting(
            "Hosts that programs may reach over HTTP, if their manifests ask for them",
            reload="live",
            why="nothing is granted unless somebody granted it",
        ),
    ] = ()
    http_networks: Annotated[
        tuple[str, ...],
        setting(
            "Networks such as 10.1.0.0/16 whose addresses programs may reach by name although they "
            "are not public",
            reload="live",
            why="a name that leads into the own network is how a program breaks out of its sandbox",
        ),
    ] = ()
    http_timeout_s: Annotated[
        Seconds,
        setting(
            "How long one exchange may take, with its redirects; a program may ask for less",
            unit="s",
            reload="live",
            why="longer than a slow API takes to answer, shorter than anybody waits for a hung one",
        ),
    ] = 60.0
    http_exchanges: Annotated[
        Count,
        setting(
            "Exchanges that one program has open, from the request until it drops the response",
            unit="exchanges",
            reload="live",
            why="a page's worth at a time; what they bring is held in memory",
        ),
    ] = 16
    http_request_bytes: Annotated[
        CrossingBytes,
        setting(
            "The largest body that a program may send",
            unit="bytes",
            reload="live",
            why="a long conversation fits",
        ),
    ] = 1 << 20
    http_response_bytes: Annotated[
        CrossingBytes,
        setting(
            "The largest body that a program may get",
            unit="bytes",
            reload="live",
            why="a long document fits; on its way into the sandbox it takes 32 times as much",
        ),
    ] = 1 << 20
    tools: Annotated[
        tuple[ToolRule, ...],
        setting(
            "MCP servers, or single tools as SERVER/TOOL, that programs may use, if their "
            "manifests ask for them",
            reload="live",
            why="nothing is granted unless somebody granted it",
        ),
    ] = ()
    tool_calls: Annotated[
        Count,
        setting(
            "Tool calls that one program has open, until it drops the result",
            unit="calls",
            reload="live",
            why="as many as exchanges",
        ),
    ] = 16
    tool_bytes: Annotated[
        CrossingBytes,
        setting(
            "The largest arguments and the largest result of a tool, and the largest list of tools",
            unit="bytes",
            reload="live",
            why="far more than a model reads",
        ),
    ] = 1 << 20
