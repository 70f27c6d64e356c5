"""Ways to draw fewer tokens, or to compute fewer."""

import json
from typing import Any

from drawing import begun, draw_all

from inferlet import Constraint, Model


def prefix_tree(root: list[int], branches: list[dict[str, Any]], new_tokens: int) -> int:
    """Prompts that share their beginnings, on two levels: each is computed once."""
    trunk = begun(root)
    trunk.flush()
    contexts = []
    for branch in branches:
        middle = trunk.fork()
        middle.append(branch["middle"])
        for leaf in branch["leaves"]:
            context = middle.fork()
            context.append(leaf)
            contexts.append(context)
    return sum(map(len, draw_all(contexts, new_tokens)))


def json_schema(prompt: list[int], schema: dict[str, Any]) -> int:
    """An object under the schema. What the schema leaves no choice about is written, not drawn."""
    model = Model.open()
    context = begun(prompt)
    written, num_tokens = "{", 0
    for name, value in schema["properties"].items():
        context.append(model.encode(f'{written}{json.dumps(name)}:"'))
        options = [f'{option}"' for option in value["enum"]]
        generation = context.generate(
            constraint=Constraint.choice(model, options), temperature=0, chunk_tokens=0
        )
        num_tokens += len(generation.collect().tokens)
        written = ","
    return num_tokens


def ngram(prompt: list[int], new_tokens: int, max_draft: int) -> int:
    """Guesses what was said before, and verifies several guesses in one pass."""
    generation = begun(prompt).generate(
        max_tokens=new_tokens,
        temperature=0,
        ignore_eos=True,
        chunk_tokens=0,
        ngram_speculation=max_draft,
    )
    return len(generation.collect().tokens)
