"""The watcher's own settings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pie_daemon.settings import Seconds, setting


class WatcherConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The inferlet folder: a file dropped there is a deployment."""

    dir: Annotated[
        str | None,
        setting(
            "The inferlet folder; null: `inferlets` in the state folder",
            reload="rebuild",
            why="next to everything else the daemon keeps",
        ),
    ] = None
    mode: Annotated[
        Literal["auto", "inotify", "poll"],
        setting(
            "How changes are noticed; auto takes inotify (or what the system has instead), "
            "and polls on network and FUSE file systems",
            reload="rebuild",
            why="the kernel reports no changes made by other machines",
        ),
    ] = "auto"
    settle_s: Annotated[
        Seconds,
        setting(
            "How long size and modification time must stay the same before a file is taken",
            unit="s",
            reload="live",
            why="longer than the pauses of a copying program, too short to be noticed",
        ),
    ] = 0.4
    rescan_s: Annotated[
        Seconds,
        setting(
            "Time between two looks at the whole folder when no event asks for one",
            unit="s",
            reload="live",
            why="heals lost events; listing a small folder costs nothing",
        ),
    ] = 10.0
    poll_s: Annotated[
        Seconds,
        setting(
            "The same in poll mode",
            unit="s",
            reload="live",
            why="a new program is taken within two seconds there, too",
        ),
    ] = 1.0
