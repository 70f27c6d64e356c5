"""A running program on the screen: its output as it comes, then its result."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from pie_client import wire
from pie_client.errors import PieError
from pie_client.events import Blob, Event, Finished, Gap, Log, Message, Stderr, Stdout
from pie_client.process import AsyncProcess, parse_result
from pie_daemon.cli import exits
from pie_daemon.cli.terminal import clean, print_json, write


class Printer:
    """Takes the events of one program in order."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._streamed: list[str] = []
        self._at_line_start = True
        self.outcome: wire.Outcome | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Finished):
            self.outcome = event.outcome
        elif self._quiet:
            return
        elif isinstance(event, Message):
            self._message(event)
        elif isinstance(event, Stdout):
            self._out(event.text)
        else:
            self._note(_remark(event))

    def finish(self) -> int:
        """Prints what was not streamed; the exit code of the program."""
        outcome = self.outcome
        if outcome is None:
            return exits.OK
        if outcome.status != "ok":
            self._end_line()
            exits.complain(clean(describe_failure(outcome)))
            return exits.FAILED
        self._result(parse_result(outcome))
        return exits.OK

    def _message(self, event: Message) -> None:
        try:
            content = event.json()
        except ValueError:
            content = None
        match content:
            case {"type": "delta", "text": str(text)}:
                self._streamed.append(text)
                self._out(text)
            case {"type": "usage"}:
                return
            case _:
                self._end_line()
                self._out(f"{event.text}\n")

    def _result(self, result: Any) -> None:
        text = result.get("text") if isinstance(result, dict) else result
        if self._streamed and (text is None or text == "".join(self._streamed)):
            self._end_line()
            return
        self._end_line()
        if isinstance(text, str):
            self._out(text)
        elif result is not None:
            self._out(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
        self._end_line()

    def _out(self, text: str) -> None:
        write(text)
        if text:
            self._at_line_start = text.endswith("\n")

    def _note(self, text: str) -> None:
        self._end_line()
        write(text if text.endswith("\n") else f"{text}\n", sys.stderr)

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._out("\n")


def _remark(event: Stderr | Log | Blob | Gap) -> str:
    match event:
        case Stderr(text=text):
            return text
        case Log(level=level, text=text):
            return f"[{level}] {text}"
        case Blob(name=name, data=data):
            return f"[blob {name}: {len(data)} bytes]"
        case Gap(start=start, end=end):
            return f"[events {start} to {end - 1} are no longer kept]"


def describe_failure(outcome: wire.Outcome) -> str:
    code = f" ({outcome.code})" if outcome.code else ""
    return f"program {outcome.status}{code}: {outcome.message or 'no reason was given'}"


async def follow(process: AsyncProcess, *, as_json: bool) -> int:
    """Shows a program until it ends."""
    printer = Printer(quiet=as_json)
    async for event in process.events():
        printer.take(event)
    if not as_json:
        return printer.finish()
    assert printer.outcome is not None  # the stream of events ends with it, or raises
    print_json(summary(process, printer.outcome))
    return exits.OK if printer.outcome.status == "ok" else exits.FAILED


def summary(process: AsyncProcess, outcome: wire.Outcome) -> dict[str, Any]:
    """What `--json` prints: the outcome, with the result parsed where it is JSON."""
    try:
        result = parse_result(outcome)
    except PieError:
        result = None
    return {
        "instance": process.id,
        "program": process.program,
        "digest": process.digest,
        "status": outcome.status,
        "result": result,
        "code": outcome.code,
        "message": outcome.message,
        "usage": msgspec.structs.asdict(outcome.usage),
    }
