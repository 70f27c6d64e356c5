"""What all of these programs do to a context."""

from inferlet import Context, Generation, Model


def begun(*parts: list[int]) -> Context:
    context = Context(Model.open())
    for tokens in parts:
        context.append(tokens)
    return context


def start(context: Context, num_tokens: int) -> Generation:
    """Greedily, and exactly so many; the program is woken once, at the end."""
    return context.generate(max_tokens=num_tokens, temperature=0, ignore_eos=True, chunk_tokens=0)


def draw(context: Context, num_tokens: int) -> list[int]:
    return start(context, num_tokens).collect().tokens


def draw_all(contexts: list[Context], num_tokens: int) -> list[list[int]]:
    """In the same batches."""
    generations = [start(context, num_tokens) for context in contexts]
    return [generation.collect().tokens for generation in generations]
