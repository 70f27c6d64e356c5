"""Reasoning that branches: every branch is a fork, which shares what is before it."""

from drawing import begun, draw, draw_all

from inferlet import Context


def tree(
    question: list[int],
    hints: list[list[int]],
    judge: list[int],
    depth: int,
    kept: int,
    lengths: dict[str, int],
) -> int:
    """Level by level each of the best thoughts is continued in several ways and judged."""
    thought, verdict = lengths["thought"], lengths["verdict"]
    best = [begun(question)]
    num_tokens = 0
    for _ in range(depth):
        branches = [_with(context, hint) for context in best for hint in hints]
        draw_all(branches, thought)
        verdicts = draw_all([_with(branch, judge) for branch in branches], verdict)
        num_tokens += len(branches) * (thought + verdict)
        order = sorted(range(len(branches)), key=lambda place: -sum(verdicts[place]))
        best = [branches[place] for place in order[:kept]]
    return num_tokens + len(draw(best[0], lengths["answer"]))


def graph(base: list[int], parts: list[list[int]], thought: int) -> int:
    """Each part is thought about; then thoughts are merged two by two until one is left."""
    trunk = begun(base)
    trunk.flush()
    thoughts = parts
    num_tokens = 0
    while True:
        drawn = draw_all([_with(trunk, one) for one in thoughts], thought)
        num_tokens += len(drawn) * thought
        if len(drawn) == 1:
            return num_tokens
        thoughts = [one + other for one, other in zip(drawn[::2], drawn[1::2], strict=True)]


def skeleton(question: list[int], points: list[list[int]], outline: int, expanded: int) -> int:
    """An outline first; then all of its points at the same time."""
    trunk = begun(question)
    draw(trunk, outline)
    draw_all([_with(trunk, point) for point in points], expanded)
    return outline + len(points) * expanded


def _with(context: Context, tokens: list[int]) -> Context:
    fork = context.fork()
    fork.append(tokens)
    return fork
