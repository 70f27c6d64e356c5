from inferlet import Arguments, Context, Model, NotFound


def run(input: dict) -> dict:
    arguments = Arguments(input)
    name = arguments.text("name", "story")
    text = arguments.text("text")
    arguments.finish()

    try:
        context = Context.open(name)  # saved by an earlier run, or by another program of this user
    except NotFound:
        context = Context(Model.open())
    context.append_text(text)
    answer = context.generate(max_tokens=16, temperature=0, ignore_eos=True).collect()
    context.save(name, durable=True)  # on the disk once this returns
    return {"answer": answer.text, "length": context.length}
