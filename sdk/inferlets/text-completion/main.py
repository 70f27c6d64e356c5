"""Continues a prompt; `docs/inferlets.md` lists its options, events and result."""

from typing import Any

from inferlet import Arguments, Context, Generation, Model, generate_options, session


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    name = arguments.text("model", None)
    prompt = arguments.text("prompt")
    stream = arguments.boolean("stream", False)
    options = generate_options(arguments)
    arguments.finish()

    wants_logprobs = options.get("logprobs") is not None
    model = Model.open(name)
    with Context(model) as context:
        context.append(model.encode(prompt, add_special=True))
        options["chunk_tokens"] = 1 if stream else 0
        with context.generate(**options) as generation:
            answer = complete(generation, stream, wants_logprobs)
    return {**answer, "logprobs": generation.logprobs} if wants_logprobs else answer


def complete(generation: Generation, stream: bool, wants_logprobs: bool) -> dict[str, Any]:
    if not stream:
        generation.collect()
    else:
        if wants_logprobs:
            send_all(generation)
        else:
            generation.relay()
        session.send_event("usage", **generation.usage.to_dict())
    return {
        "text": generation.text,
        "tokens": generation.tokens,
        "finish_reason": generation.finish_reason,
    }


def send_all(generation: Generation) -> None:
    """Every piece of text, with the tokens that came since the one before."""
    sent = 0  # tokens
    for chunk in generation:
        if chunk.text:
            tokens, logprobs = generation.tokens[sent:], generation.logprobs[sent:]
            session.send_event("delta", text=chunk.text, tokens=tokens, logprobs=logprobs)
            sent = len(generation.tokens)
