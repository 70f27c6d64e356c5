"""Logging of the whole daemon: structlog to stderr, with a level that obeys at run time."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TextIO, cast

import msgspec
import structlog

from pie_daemon.settings import setting

Level = Literal["debug", "info", "warning", "error"]

_RANKS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class LoggingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the daemon tells its operator."""

    level: Annotated[
        Level,
        setting(
            "The least severe messages that are written",
            reload="live",
            why="every decision of the daemon once, nothing per token",
        ),
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"],
        setting(
            "auto: JSON under systemd, or when stderr is not a terminal; else for people",
            reload="restart",
            why="the journal is read by machines, a terminal by people",
        ),
    ] = "auto"


class _Threshold:
    """Read on every message, so that loggers which are bound already obey a change."""

    rank = _RANKS["info"]


def _drop_below(_: Any, method: str, event: structlog.typing.EventDict) -> Any:
    if _RANKS.get(method, 50) < _Threshold.rank:
        raise structlog.DropEvent
    return event


def set_level(level: Level) -> None:
    """Changes the level of every logger at once, also of those in use."""
    _Threshold.rank = _RANKS[level]
    logging.getLogger().setLevel(_RANKS[level])


def wants_json(format_: str, stream: TextIO, environ: Mapping[str, str]) -> bool:
    if format_ != "auto":
        return format_ == "json"
    return "JOURNAL_STREAM" in environ or not stream.isatty()


class _Stderr(io.TextIOBase):
    """Whatever stderr is when a message is written: loggers that are bound keep their stream."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def configure(config: LoggingConfig, stream: TextIO | None = None) -> None:
    """Sets up structlog and sends the messages of the standard library the same way."""
    stream = stream or cast(TextIO, _Stderr())
    renderers = _renderers(wants_json(config.format, stream, os.environ), stream)
    structlog.configure(
        processors=[_drop_below, *_shared(), *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(), processors=[remove_meta, *renderers]
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    set_level(config.level)


def _shared() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderers(as_json: bool, stream: TextIO) -> list[structlog.typing.Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
