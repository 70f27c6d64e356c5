from collections import Counter

from inferlet import Arguments, Context, Model, events


def run(input: dict) -> dict:
    arguments = Arguments(input)
    question = arguments.text("question")
    tries = arguments.integer("tries", 4, minimum=1, maximum=32)
    arguments.finish()

    model = Model.open()
    prompt = Context(model)
    prompt.append(model.apply_chat_template([{"role": "user", "content": question}]))
    prompt.flush()  # computed once; the forks share it

    forks = [prompt.fork() for _ in range(tries)]
    running = [
        fork.generate(max_tokens=64, temperature=0.8, seed=seed, chunk_tokens=0)
        for seed, fork in enumerate(forks)
    ]
    answers: list[str] = []
    while running:  # all of them decode in the same batches; take them as they finish
        for generation in events.wait_any(running):
            answers.append(generation.collect().text.strip())
            running.remove(generation)

    answer, votes = Counter(answers).most_common(1)[0]
    return {"answer": answer, "votes": votes, "of": tries}
