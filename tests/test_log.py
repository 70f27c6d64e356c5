"""Levels that obey at run time, and lines for people or for machines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from pie_daemon import log
from pie_daemon.log import LoggingConfig


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What is configured here is undone for the tests that follow."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    log.set_level("info")
    structlog.reset_defaults()


def test_level_changes_for_loggers_in_use() -> None:
    """A logger that has written already obeys the next level, too, both ways."""
    stream = io.StringIO()
    log.configure(LoggingConfig(format="json"), stream)
    warm = structlog.get_logger()
    warm.info("one")
    log.set_level("error")
    warm.info("two")
    logging.getLogger("library").warning("three")
    log.set_level("debug")
    warm.debug("four")

    assert ["one", "four"] == [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


def test_every_line_of_json_is_a_document() -> None:
    """Also exceptions, line breaks of guests, and what libraries log."""
    stream = io.StringIO()
    log.configure(LoggingConfig(format="json"), stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        structlog.get_logger().exception("it failed", text="a\nb")
    logging.getLogger("library").warning("from %s", "elsewhere")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert ("it failed", "error", "a\nb") == (first["event"], first["level"], first["text"])
    assert "ValueError" in first["exception"]
    assert ("from elsewhere", "warning") == (second["event"], second["level"])


def test_console_is_for_people() -> None:
    """Without a terminal there are no colours in it either."""
    stream = io.StringIO()
    log.configure(LoggingConfig(format="console"), stream)
    structlog.get_logger().info("ready", models=2)

    assert "ready" in stream.getvalue()
    assert "models=2" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("format_", "stream", "environ", "as_json"),
    [
        ("auto", Terminal(), {}, False),
        ("auto", Terminal(), {"JOURNAL_STREAM": "8:1"}, True),
        ("auto", io.StringIO(), {}, True),
        ("console", io.StringIO(), {"JOURNAL_STREAM": "8:1"}, False),
        ("json", Terminal(), {}, True),
    ],
)
def test_format_follows_the_reader(
    format_: str, stream: io.StringIO, environ: dict[str, str], as_json: bool
) -> None:
    """The journal and pipes get JSON, a terminal text, unless the configuration decides."""
    assert as_json == log.wants_json(format_, stream, environ)


def test_a_bound_logger_survives_a_stderr_that_was_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Messages go to the stderr of the moment, never to one that is closed by now."""
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    log.configure(LoggingConfig(format="json"))
    logger = structlog.get_logger()
    logger.info("one")
    monkeypatch.setattr("sys.stderr", second)
    first.close()
    logger.info("two")

    assert "two" in second.getvalue()
