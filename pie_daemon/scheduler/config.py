"""The scheduler's own section of the configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pie_daemon.settings import Amount, Count, setting


class SchedulerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much work goes into one forward pass, and how the KV cache is cut."""

    max_batch_tokens: Annotated[
        Count,
        setting(
            "Tokens in one forward pass; long prompts are computed in chunks of what decoding "
            "leaves",
            unit="tokens",
            reload="rebuild",
            why="keeps a device busy without holding up the tokens of others for long",
        ),
    ] = 2048
    max_batch_rows: Annotated[
        Count,
        setting(
            "Requests that run at the same time; at most max_batch_tokens of them count",
            unit="rows",
            reload="rebuild",
            why="more rows than any of the supported devices gains from",
        ),
    ] = 256
    max_draft_tokens: Annotated[
        Amount,
        setting(
            "Guesses of speculation in one forward pass, of all its requests; 0: none",
            unit="tokens",
            reload="rebuild",
            why="eight each for 32 requests, where right guesses still pay on a CPU",
        ),
    ] = 256
    max_burst: Annotated[
        Count,
        setting(
            "Passes that the backend makes before the scheduler is asked again, while nothing but "
            "tokens comes of them; each is told at once where somebody waits for its tokens; who "
            "comes meanwhile ends them after the pass at hand; 1: always one",
            unit="passes",
            reload="rebuild",
            why="then what the scheduler costs is spread over so many tokens that it hardly shows",
        ),
    ] = 32
    gather_share: Annotated[
        float,
        msgspec.Meta(ge=0),
        setting(
            "How long a batch waits for programs that the last one has answered and that mostly "
            "come back at once, at most: until it costs those that wait this part of what leaving "
            "without them would cost. After a rest, for programs that were woken together with the "
            "first one that asks, at most this part of two batches; 0: it never waits",
            reload="rebuild",
            why="then both together cost at most twice what the better of them would have cost",
        ),
    ] = 1.0
    replica_slack: Annotated[
        Amount,
        setting(
            "With backend.replicas: so many more live requests than the least busy one may a "
            "replica have and still get a prompt whose beginning it knows; forks leave it at four "
            "times as many",
            unit="requests",
            reload="rebuild",
            why="a row more in a batch costs less than computing a prompt again",
        ),
    ] = 8
    page_size: Annotated[
        Count,
        setting(
            "Tokens in one page of the KV cache",
            unit="tokens",
            reload="restart",
            why="wastes half a page a context on average, and attention kernels like 16",
        ),
    ] = 16
    share_prefixes: Annotated[
        bool,
        setting(
            "Lets a prompt begin with what another user's prompt computed, when they are equal",
            reload="restart",
            why="an answer that comes early tells that somebody else has asked the same before",
        ),
    ] = False
