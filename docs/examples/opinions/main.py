from inferlet import Adapter, Context, Model


def run(input: dict) -> dict:
    model = Model.open()
    adapters = {name: Adapter.open(model, name) for name in input.get("adapters", [])}
    message = {"role": "user", "content": input.get("question", "What is Pie?")}
    running = {}
    for name, adapter in {"no adapter": None, **adapters}.items():
        context = Context(model)
        context.append(model.apply_chat_template([message]))
        running[name] = context.generate(adapter=adapter, max_tokens=64, chunk_tokens=0)
    return {name: generation.collect().text for name, generation in running.items()}
