"""Speaks the chat contract, well or badly, as the JSON in the last message says."""

import json
from typing import Any

from inferlet import Context, Exhausted, InvalidArgument, Model, session


def run(input: dict[str, Any]) -> Any:
    order = dict(json.loads(input["messages"][-1]["content"]))
    return globals()["do_" + order.pop("do")](input, **order)


def do_input(input: dict[str, Any]) -> Any:
    """Answers with what it was given."""
    return {"text": json.dumps(input)}


def do_say(input: dict[str, Any], pieces: list[str], then: str = "stop") -> Any:
    for piece in pieces:
        session.send_event("delta", text=piece)
        session.send_event("progress", more="nobody else's affair")
        session.send("not JSON")
    return {"text": "".join(pieces), "finish_reason": then}


def do_result(input: dict[str, Any], value: Any) -> Any:
    return value


def do_crash(input: dict[str, Any], after: int, how: str = "raise") -> Any:
    for number in range(after):
        session.send_event("delta", text=f"{number} ")
    if how == "refuse":
        raise InvalidArgument("not with me")
    if how == "exhaust":
        raise Exhausted("no room")
    if how == "exit":
        raise SystemExit(3)
    raise ValueError("as asked")


def do_flood(input: dict[str, Any], events: int) -> Any:
    for _ in range(events):
        session.send_event("delta", text="x" * 1000)
    return {"finish_reason": "length"}


def do_hold(input: dict[str, Any], say: bool = True) -> Any:
    """Takes pages and waits for ever."""
    with Context(Model.open()) as context:
        context.append(list(range(100)))
        context.flush()
        if say:
            session.send_event("delta", text="holding")
        session.receive()


def do_generate(input: dict[str, Any]) -> Any:
    """Never ends by itself."""
    with Context(Model.open()) as context:
        context.append(list(range(100)))
        while True:
            with context.generate(max_tokens=1000, ignore_eos=True) as generation:
                for chunk in generation:
                    session.send_event("delta", text=chunk.text)
            context.truncate(100)


def do_call(input: dict[str, Any]) -> Any:
    session.send_event("tool_call", id="mine", name="add", arguments={"a": 1})
    return {"text": ""}
