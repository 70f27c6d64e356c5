"""docs/protocol.md is the authority: it, the messages and the handlers say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from pie_client import wire
from pie_client.codec import HEAD
from pie_daemon.errors import CODES
from support.listening import listening
from support.wire_samples import tag

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
MESSAGES = [*get_args(wire.AnyRequest), *get_args(wire.AnyReply)]
SECTIONS = {
    match[1]: match[2]
    for match in re.finditer(r"^### (\S+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
}


def test_the_version_is_that_of_the_code() -> None:
    """The version on the page is the one that is spoken."""
    assert re.findall(r"^Protocol version: (\d+)$", TEXT, re.MULTILINE) == [
        str(wire.PROTOCOL_VERSION)
    ]
    assert f"{HEAD.size} bytes" in TEXT


def test_every_message_has_one_section() -> None:
    """Each message has one section, and each section its message."""
    titles = re.findall(r"^### (.*)$", TEXT, re.MULTILINE)
    assert sorted(titles) == sorted(tag(message) for message in MESSAGES)


@pytest.mark.parametrize("message", MESSAGES, ids=tag)
def test_every_field_is_described(message: type[msgspec.Struct]) -> None:
    """The section of a message names each of its fields."""
    words = set(re.findall(r"[a-z0-9_]+", SECTIONS[tag(message)]))
    assert set(message.__struct_fields__) - words == set()


def test_every_code_is_listed() -> None:
    """The codes of the daemon are the codes on the page."""
    assert CODES <= set(re.findall(r"[a-z-]+", SECTIONS["error"]))


async def test_every_request_has_one_handler() -> None:
    """The table of the daemon has a handler for each request, each its own."""
    async with listening() as daemon:
        commands = daemon.server.commands
        handlers = [*commands.at_once.items(), *commands.later.items()]
        assert sorted(request.__name__ for request, _ in handlers) == sorted(
            request.__name__ for request in get_args(wire.AnyRequest)
        )
        assert len({handler.__name__ for _, handler in handlers}) == len(handlers)
