"""Calls every function of the guest package and says what came back.

The launcher delivers one text, one blob and then closes its side; nothing else is needed. Whatever
the model, as long as it is not at its end token within eight greedy tokens, the result is

    {"model":   {"opened": true, "round_trip": true, "bytes": true, "template": true,
                 "unknown": "not-found"},
     "context": {"lengths": [3, 8, 8, 5], "tokens": true, "fork": true,
                 "past_end": "invalid-argument", "foreign_token": "invalid-argument"},
     "hidden":  {"shown": true, "hidden": true, "priority": true, "nothing": "invalid-argument",
                 "outside": "invalid-argument"},
     "saved":   {"opened": true, "durable": true, "names": true, "model": true, "gone": "not-found",
                 "nameless": "invalid-argument"},
     "generation": {"same": true, "seeded": true, "length": true, "stop_token": true,
                    "usage": true, "busy": "busy", "waited": true, "cancelled": true,
                    "refused": "invalid-argument"},
     "constraints": {"texts": true, "finished": true, "chat": true, "forked": true,
                     "rolled_back": true, "followed": true, "formats": true, "atomic": true,
                     "masked": true,
                     "refused": ["invalid-argument", "invalid-argument", "invalid-argument"]},
     "chat":    {"turns": 5, "prefix_kept": true, "calls": true, "biases": true},
     "session": {"text": "ping", "blob": ["data", [0, 255]], "end": true},
     "events":  {"timeout": true, "timer": true},
     "storage": {"value": true, "keys": true, "gone": true, "refused": "quota"},
     "messaging": {"queue": true, "broadcast": true, "silence": true, "refused": "exhausted"},
     "runtime": {"named": true, "budget": true, "child": true, "ended": "cancelled",
                 "unknown": "not-found", "refused": "invalid-argument"}}

with `echo` installed, which it launches, and with the events `message` "hello", `message`
{"type": "note", "n": 1}, `blob` "bytes" 00 ff, and the log lines "a line" (info) and "careful"
(warning).
"""

from collections.abc import Callable
from typing import Any

from inferlet import (
    Arguments,
    Chat,
    Constraint,
    Context,
    Model,
    PieError,
    ToolCallParser,
    delete_saved,
    events,
    masks,
    messaging,
    runtime,
    saved,
    session,
    storage,
)

PROMPT = "abcde"
GREEDY: Any = {"temperature": 0, "ignore_eos": True}


def run(input: dict[str, Any]) -> dict[str, Any]:
    if "wait" in input:
        session.receive()
    model = Model.open()
    parts = (about_context, about_hidden, about_generation, about_constraints, about_chat)
    answers = {part.__name__.removeprefix("about_"): part(model) for part in parts}
    return {
        "model": about_model(model),
        **answers,
        "saved": about_saved(model, runtime.instance_id()),
        "session": about_session(),
        "events": about_events(),
        "storage": about_storage(runtime.instance_id()),
        "messaging": about_messaging(runtime.instance_id()),
        "runtime": about_runtime(),
    }


def code_of(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The code of the error that the call raises."""
    try:
        function(*args, **options)
    except PieError as error:
        return error.code
    return "ok"


def about_model(model: Model) -> dict[str, Any]:
    tokens = model.encode(PROMPT)
    message = {"role": "user", "content": "hi"}
    with_tools = model.apply_chat_template([message], tools=[], add_generation_prompt=False)
    return {
        "opened": model.info.name in Model.names() and model.info.vocab_size > max(tokens),
        "round_trip": isinstance(model.decode(tokens), str) and len(tokens) > 0,
        "bytes": isinstance(model.token_bytes(tokens[0]), bytes),
        "template": len(with_tools) > 0 and len(model.apply_chat_template([message])) > 0,
        "unknown": code_of(Model.open, "no-such-model"),
    }


def about_context(model: Model) -> dict[str, Any]:
    with Context(model) as context:
        start = model.encode(PROMPT)[:3]
        context.append(start)
        lengths = [context.length]
        context.append((start * 2)[:5])
        lengths.append(len(context))
        context.flush()
        lengths.append(context.length)
        fork = context.fork()
        context.truncate(5)
        lengths.append(context.length)
        added = fork.append_text(PROMPT)
        answer = {
            "lengths": lengths,
            "tokens": context.tokens(0, 3) == start and len(context.tokens()) == 5,
            "fork": fork.length == 8 + added,
            "past_end": code_of(context.tokens, 0, 99),
            "foreign_token": code_of(context.append, [model.info.vocab_size]),
        }
        fork.close()
    return answer


def about_hidden(model: Model) -> dict[str, Any]:
    whole = generated(model, **GREEDY)
    with prompted(model) as context:
        context.hide(0, 2)
        context.set_priority(1000)
        length = context.length
        blind = context.generate(max_tokens=8, **GREEDY).collect().tokens
        context.truncate(length)
        context.show()
        context.set_priority(-1)
        seeing = context.generate(max_tokens=8, **GREEDY).collect().tokens
        context.hide(0)
        return {
            "hidden": len(blind) == 8 and context.tokens(0, 2) == model.encode(PROMPT)[:2],
            "shown": len(whole) == len(seeing) == 8,
            "priority": context.length == length + 8,
            "nothing": code_of(context.generate, max_tokens=1),
            "outside": code_of(context.hide, 0, 99),
        }


def about_saved(model: Model, own: str) -> dict[str, Any]:
    with prompted(model) as context:
        context.hide(0, 2)
        context.save(f"{own}/kept")
        context.save(f"{own}/durable", durable=True)
        expected = context.generate(max_tokens=8, **GREEDY).collect().tokens
    opened = [Context.open(f"{own}/{name}") for name in ("kept", "durable")]
    drawn = [context.generate(max_tokens=8, **GREEDY).collect().tokens for context in opened]
    names = [name for name in saved() if name.startswith(own)]
    for name in names:
        delete_saved(name)
    return {
        "opened": drawn[0] == expected,
        "durable": drawn[1] == expected,
        "names": names == [f"{own}/durable", f"{own}/kept"] and not set(names) & set(saved()),
        "model": opened[0].model.info.name == model.info.name,
        "gone": code_of(Context.open, f"{own}/kept"),
        "nameless": code_of(opened[0].save, ""),
    }


def about_generation(model: Model) -> dict[str, Any]:
    whole = generated(model, chunk_tokens=0, **GREEDY)
    pieces = generated(model, chunk_tokens=3, **GREEDY)
    drawn = [generated(model, temperature=1.0, top_k=50, top_p=0.9, min_p=0.01, seed=7)]
    drawn.append(generated(model, temperature=1.0, top_k=50, top_p=0.9, min_p=0.01, seed=7))
    with prompted(model) as context:
        stopped = context.generate(max_tokens=8, stop_tokens=[whole[3]], **GREEDY).collect()
    return {
        "same": whole == pieces,
        "seeded": drawn[0] == drawn[1],
        "length": len(whole) == 8,
        "stop_token": (stopped.finish_reason, stopped.stopped_by) == ("stop", whole[3]),
        "guessed": guessing_changes_nothing(model, whole),
        "usage": stopped.usage.prompt_tokens > 0 and stopped.usage.generated_tokens > 0,
        **while_running(model),
    }


def guessing_changes_nothing(model: Model, whole: list[int]) -> bool:
    tokens = generated(model, ngram_speculation=4, **GREEDY)
    with prompted(model) as context:
        # Once more after its own end, so that there is something to repeat.
        context.append(whole)
        context.append_text(PROMPT)
        wide = {"max_draft": 3, "min_match": 1, "max_match": 2}
        generation = context.generate(max_tokens=8, ngram_speculation=wide, **GREEDY).collect()
        usage = generation.usage
        refused = code_of(context.generate, ngram_speculation=33)
    drafted = usage.drafted_tokens >= usage.accepted_tokens
    return tokens == whole and drafted and refused == "invalid-argument"


def while_running(model: Model) -> dict[str, Any]:
    with prompted(model) as context:
        length = context.length
        generation = context.generate(max_tokens=3000, chunk_tokens=1, **GREEDY)
        ready = events.wait_any([generation])
        first = generation.next()
        busy = code_of(context.append, [1])
        generation.cancel()
        taken = [] if first is None else first.tokens
        return {
            "busy": busy,
            "waited": ready == [generation] and generation.finish_reason in (None, "cancelled"),
            "cancelled": context.length >= length + len(taken),
            "refused": code_of(prompted(model).generate, temperature=-1),
        }


def generated(model: Model, **options: Any) -> list[int]:
    with prompted(model) as context, context.generate(max_tokens=8, **options) as generation:
        tokens = [token for chunk in generation for token in chunk.tokens]
        assert generation.finish_reason is not None
        assert tokens == generation.tokens
        assert isinstance(generation.text, str)
        return tokens


def prompted(model: Model) -> Context:
    context = Context(model)
    context.append_text(PROMPT)
    return context


class Flag:
    """A class of pydantic's kind."""

    @staticmethod
    def model_json_schema() -> dict[str, Any]:
        return {"type": "boolean"}


def about_constraints(model: Model) -> dict[str, Any]:
    answers = Constraint.choice(model, ["yes", "no"])
    flags = [Constraint.json_schema(model, one) for one in (Flag, '{"enum": [true, false]}')]
    others = (Constraint.regex(model, "[a-c]{3}"), Constraint.lark(model, 'start: "a" "b"'))
    made = [constrained(model, one) for one in (answers, *flags, *others)]
    texts = [text for text, _ in made]
    asked = Chat(model).user("so?").reply(constraint=answers, temperature=0)
    object_format = {"type": "json_schema", "json_schema": {"schema": Flag.model_json_schema()}}
    formats = [{"type": "text"}, object_format]
    return {
        "texts": texts[0] in ("yes", "no")
        and {*texts[1:3]} <= {"true", "false"}
        and (len(texts[3]), texts[4]) == (3, "ab"),
        "finished": all(ended == ("stop", None) for _, ended in made),
        "chat": asked.text in ("yes", "no"),
        **while_following(model, answers),
        "formats": [Constraint.response_format(model, one) is None for one in formats]
        == [True, False],
        "refused": [
            code_of(Constraint.json_schema, model, "{"),
            code_of(Constraint.choice, model, []),
            code_of(Constraint.response_format, model, {"type": "yaml"}),
        ],
    }


def while_following(model: Model, constraint: Constraint) -> dict[str, Any]:
    start = constraint.allowed()
    row = masks.bits(constraint.mask())
    masked = [token for token, may_come in enumerate(row) if may_come] == start
    with constraint.fork() as fork:
        fork.accept(start[0])
        forked = fork.allowed() != start and constraint.allowed() == start
        code = code_of(fork.accept, [*fork.allowed()[:1], start[0], start[0]])
        atomic = (code, fork.allowed() != start) == ("invalid-argument", True)
        fork.rollback(1)
        rolled_back = fork.allowed() == start
    free = Constraint.json(model)
    whole = Constraint.lark(model, 'start: "ab"')
    while not whole.complete:
        whole.accept([whole.allowed()[0]])
    ends = set(whole.allowed())
    return {
        "masked": masked,
        "forked": forked,
        "atomic": atomic,
        "rolled_back": rolled_back,
        "followed": ends == set(model.info.eos_tokens) and not free.complete,
    }


def constrained(model: Model, constraint: Constraint) -> tuple[str, tuple[Any, Any]]:
    with prompted(model) as context:
        made = context.generate(constraint=constraint, max_tokens=32).collect()
        return made.text, (made.finish_reason, made.stopped_by)


def about_chat(model: Model) -> dict[str, Any]:
    chat = Chat(model, system="short")
    chat.user("one").reply(max_tokens=4, temperature=0)
    first = chat.tokens(add_generation_prompt=False)
    pieces = list(chat.user("two").stream(max_tokens=4, temperature=0))
    assert all(isinstance(piece, str) for piece in pieces)
    chat.assistant("three")
    chat.close()
    parser = ToolCallParser()
    seen = parser.feed('so <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>')
    return {
        "turns": len(chat.messages) - 1,
        "prefix_kept": chat.tokens()[:5] == first[:5],
        "calls": (seen, [call.name for call in parser.calls]) == ("so ", ["f"]),
        "biases": Arguments({"logit_bias": {"5": 1}}).biases("logit_bias") == {5: 1},
    }


def about_session() -> dict[str, Any]:
    session.send("hello")
    session.send_event("note", n=1)
    session.send_bytes("bytes", b"\x00\xff")
    assert events.wait_any([session]) == [session]
    text = session.receive()
    blob = session.receive()
    assert isinstance(blob, session.Blob)
    left = list(session.messages())
    return {"text": text, "blob": [blob.name, list(blob.data)], "end": left == []}


def about_events() -> dict[str, Any]:
    late = events.timer(3600)
    soon = events.timer(0.01)
    return {
        "timeout": events.wait_any([late], timeout_s=0.01) == [] and not late.ready(),
        "timer": events.wait_any([late, soon]) == [soon],
    }


def about_storage(own: str) -> dict[str, Any]:
    first, second = f"{own}/a", f"{own}/b"
    storage.set(second, "text")
    storage.set(first, b"\x00\xff")
    kept = storage.keys(f"{own}/")
    values = [storage.get(key) for key in kept]
    storage.delete(first)
    storage.delete(first)
    storage.delete(second)
    return {
        "value": values == [b"\x00\xff", b"text"],
        "keys": kept == [first, second],
        "gone": storage.get(first) is None and storage.keys(own) == [],
        "refused": code_of(storage.set, own * 200, b""),
    }


def about_messaging(own: str) -> dict[str, Any]:
    messaging.push(own, "one")
    with messaging.pull(own) as queue, messaging.listen(own) as heard:
        ready = events.wait_any([queue, heard])
        queued = [queue.next(), queue.next(0), queue.next(0.01)]
        messaging.publish(own, "two")
        messaging.publish(own, "three")
        taken = [heard.next(), heard.next(10), heard.next(timeout_s=0)]
    messaging.publish(own, "nobody")
    return {
        "queue": ready == [queue] and queued == ["one", None, None],
        "broadcast": taken == ["two", "three", None],
        "silence": messaging.listen(own).next(0) is None,
        "refused": code_of(messaging.push, own, "x" * (2 << 20)),
    }


def about_runtime() -> dict[str, Any]:
    runtime.log("a line")
    runtime.log("careful", "warning")
    names = (runtime.version(), runtime.instance_id(), runtime.program(), runtime.username())
    return {
        "named": all(names),
        "budget": isinstance(runtime.budget(), dict),
        **about_children(),
    }


def about_children() -> dict[str, Any]:
    child = runtime.launch("echo", {"a": 1}, deadline_s=60)
    result = child.result(30)
    ended = runtime.launch("guest-sdk", {"wait": True})
    ended.cancel()
    runtime.launch("echo").detach()
    return {
        "child": len(child.id) > 0 and child.done and result == {"a": 1},
        "ended": code_of(ended.result, 30),
        "unknown": code_of(runtime.launch, "no-such-program"),
        "refused": code_of(runtime.launch, "echo", deadline_s=-1),
    }
