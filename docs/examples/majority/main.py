from collections import Counter

from inferlet import Arguments, Chat, Model, session


def run(input: dict) -> dict:
    arguments = Arguments(input)
    messages = arguments.items("messages")
    stream = arguments.boolean("stream", False)
    max_tokens = arguments.integer("max_tokens", 64, minimum=1)
    arguments.finish()

    model = Model.open()
    replies = [
        Chat(model, messages).reply(temperature=0.8, seed=seed, max_tokens=max_tokens)
        for seed in range(5)
    ]
    answer = Counter(reply.text for reply in replies).most_common(1)[0][0]
    if stream:
        session.send_event("delta", text=answer)
    return {"text": answer, "finish_reason": "stop"}
