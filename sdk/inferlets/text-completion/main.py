"""Continues a prompt; `docs/inferlets.md` lists its options, events and result."""

from typing import Any

from inferlet import Arguments, Context, Generation, Model, generate_options, session


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    prompt = arguments.text("prompt")
    stream = arguments.boolean("stream", False)
    options = generate_options(arguments)
    arguments.finish()

    model = Model.open()
    with Context(model) as context:
        context.append(model.encode(prompt, add_special=True))
        options["chunk_tokens"] = 1 if stream else 0
        with context.generate(**options) as generation:
            answer = complete(generation, stream)
    if options.get("logprobs") is not None:
        answer["logprobs"] = generation.logprobs
    return answer


def complete(generation: Generation, stream: bool) -> dict[str, Any]:
    for chunk in generation:
        if stream and chunk.text:
            session.send_event("delta", text=chunk.text)
    if stream:
        session.send_event("usage", **generation.usage.to_dict())
    return {
        "text": generation.text,
        "tokens": generation.tokens,
        "finish_reason": generation.finish_reason,
    }
