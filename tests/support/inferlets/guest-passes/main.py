"""Forward passes: each `about` shows one part of what they can do.

Whatever the model, every value of the result is true, but for `refused`, which holds codes. With
`loop` or `generate`, a number of tokens, it only decodes so many, by passes or token by token.
"""

from collections.abc import Callable, Sequence
from typing import Any

from inferlet import (
    Adapter,
    Constraint,
    Context,
    ForwardPass,
    Model,
    Pass,
    PieError,
    Slot,
    events,
    masks,
    submit,
)

PROMPT = "a story about"
SAMPLED: Any = {"temperature": 1.0, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 7}
PENALISED: Any = {
    "temperature": 0,
    "repetition_penalty": 1.3,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "logit_bias": {3: -2.0},
}


def run(input: dict[str, Any]) -> dict[str, Any]:
    model = Model.open()
    if "adapter" in input:
        return about_adapter(model, input["adapter"])
    if "loop" in input:
        return {"tokens": loop(model, input["loop"], {"temperature": 0})}
    if "generate" in input:
        return {"tokens": streamed(model, input["generate"])}
    return {
        "loop": about_loop(model),
        "next": about_next_token(model),
        "slots": about_slots(model),
        "masks": about_masks(model),
        "constraint": about_constraint(model),
        "tree": tokens_of_tree(model) == tokens_of_forks(model),
        "positions": about_positions(model),
        "together": about_together(model),
        "refused": about_refusals(model),
    }


def about_adapter(model: Model, name: str) -> dict[str, bool]:
    """Passes with it draw what `generate` draws with it."""
    tokens: list[int] = []
    with Adapter.open(model, name) as adapter, prompted(model) as context:
        asked = {"max_tokens": 4, "chunk_tokens": 0, "ignore_eos": True}
        wanted = context.fork().generate(adapter=adapter, **asked).collect().tokens
        for _ in wanted:
            forward = ForwardPass(context, tokens[-1:])
            forward.adapter(adapter)
            forward.sample()
            tokens += forward.submit().tokens
    return {"same": tokens == wanted, "other": tokens != generated(model, 4, {})}


def prompted(model: Model) -> Context:
    context = Context(model)
    context.append_text(PROMPT)
    return context


def loop(model: Model, num_tokens: int, options: Any) -> list[int]:
    """A decode loop made of passes."""
    tokens: list[int] = []
    with prompted(model) as context:
        for draw in range(num_tokens):
            forward = ForwardPass(context, tokens[-1:])
            drawn: Slot[int] = forward.sample(draw=draw, **options)
            with forward.submit() as one:
                tokens.append(one.get()[drawn])
        assert context.length > num_tokens - 1
        return tokens


def streamed(model: Model, num_tokens: int) -> list[int]:
    with prompted(model) as context:
        asked = {"max_tokens": num_tokens, "chunk_tokens": 1, "ignore_eos": True}
        return context.generate(**asked).collect().tokens


def generated(model: Model, num_tokens: int, options: Any) -> list[int]:
    with prompted(model) as context:
        asked = {"max_tokens": num_tokens, "chunk_tokens": 0, "ignore_eos": True}
        return context.generate(**asked, **options).collect().tokens


def about_loop(model: Model) -> dict[str, bool]:
    cases: dict[str, tuple[int, Any]] = {
        "greedy": (32, {"temperature": 0}),
        "sampled": (8, SAMPLED),
        "penalised": (8, PENALISED),
    }
    return {
        name: loop(model, num, options) == generated(model, num, options)
        for name, (num, options) in cases.items()
    }


def about_next_token(model: Model) -> dict[str, bool]:
    with prompted(model) as context:
        first = context.next_token(temperature=0)
        again = context.next_token([], temperature=0)
        length = context.length
        with context.generate(max_tokens=100, ignore_eos=True):
            busy = code_of(context.next_token)
        refused = [
            code_of(context.next_token, [model.info.vocab_size]),
            code_of(context.next_token, [1] * (model.info.max_context + 1)),
            code_of(context.next_token, no_such_option=1),
            code_of(Context(model).next_token),
        ]
    return {
        "greedy": stepped(model, 32, {"temperature": 0})
        == generated(model, 32, {"temperature": 0}),
        "sampled": stepped(model, 8, SAMPLED) == generated(model, 8, SAMPLED),
        "penalised": stepped(model, 8, PENALISED) == generated(model, 8, PENALISED),
        "not appended": first == again and length == len(model.encode(PROMPT)),
        "busy": busy == "busy",
        "refused": set(refused) == {"invalid-argument"},
    }


def stepped(model: Model, num_tokens: int, options: Any) -> list[int]:
    tokens: list[int] = []
    with prompted(model) as context:
        for draw in range(num_tokens):
            tokens.append(context.next_token(tokens[-1:], draw=draw, **options))
    return tokens


def about_slots(model: Model) -> dict[str, bool]:
    size = model.info.vocab_size
    with prompted(model) as context:
        more = model.encode(" a fox")
        forward = ForwardPass(context, more)
        entropy = forward.entropy(0)
        first = forward.sample(0)
        logits = forward.logits()
        likely = forward.distribution(3)
        drawn = forward.sample(temperature=0)
        some = forward.logprobs([1, 2, 3])
        state = forward.hidden_state()
        one = forward.submit()
        ready = events.wait_any([one])
        answers = one.get()
        best = max(range(size), key=answers[logits].__getitem__)
        chances = [probability for _, probability in answers[likely]]
        return {
            "waited": ready == [one] and one.waitable().ready(),
            "order": len(answers) == 7 and one.tokens == [answers[first], answers[drawn]],
            "logits": len(answers[logits]) == size and best == answers[drawn],
            "distribution": answers[likely][0][0] == best and chances == sorted(chances)[::-1],
            "logprobs": len(answers[some]) == 3 and max(answers[some]) <= 0,
            "entropy": answers[entropy] >= 0,
            "state": len(answers[state]) >= 1,
            "again": again(context) == answers[drawn],
            "again_after": one.get() is answers,
        }


def again(context: Context) -> int:
    """Without input: after the context's last token."""
    forward = ForwardPass(context)
    drawn = forward.sample()
    return forward.submit().get()[drawn]


def about_masks(model: Model) -> dict[str, bool]:
    size = model.info.vocab_size
    with prompted(model) as context:
        free = again(context)
        forward = ForwardPass(context)
        forward.logit_mask(masks.runs_of([free, 9], size))
        forward.logit_mask(masks.runs([token != free for token in range(size)]))
        only, seen = forward.sample(), forward.distribution(5)
        answers = forward.submit().get()
        length = context.length
        near, far = (masked(model, PROMPT, sees) for sees in ([length], range(length + 1)))
        return {
            "logits": answers[only] == 9 and answers[seen][0][0] == 9,
            "attention": near != far and near == masked(model, PROMPT[::-1], [length]),
            "causal": close(far, plain(model, PROMPT)),
        }


def about_constraint(model: Model) -> dict[str, bool]:
    """Passes that follow a constraint draw what `generate` draws under it."""
    tokens: list[int] = []
    in_grammar = only_allowed = True
    with Constraint.regex(model, "[a-c]{2}x[0-9a-c]{3}") as place, prompted(model) as context:
        wanted = context.fork().generate(constraint=place, max_tokens=32, temperature=0).collect()
        while not place.complete and len(tokens) < 32:
            forward = ForwardPass(context, tokens[-1:])
            with place.fork() as ahead:
                forward.constraint(ahead)
                ahead.accept(ahead.allowed()[0])  # the pass stays with what was allowed before
            drawn, seen = forward.sample(), forward.distribution(8)
            answers = forward.submit().get()
            allowed = set(place.allowed())
            in_grammar = in_grammar and answers[drawn] in allowed
            only_allowed = (
                only_allowed
                and {token for token, probability in answers[seen] if probability} <= allowed
            )
            tokens.append(answers[drawn])
            place.accept(tokens[-1])
        both = ForwardPass(context)
        both.constraint(place)
        nothing = code_of(both.logit_mask, masks.runs_of(tokens[:1], model.info.vocab_size))
    return {
        "in_grammar": in_grammar,
        "only_allowed": only_allowed,
        "complete": len(tokens) < 32,
        "same": tokens == wanted.tokens,
        "with_mask": nothing == "invalid-argument",
    }


def close(one: list[tuple[int, float]], other: list[tuple[int, float]]) -> bool:
    """Equal but for rounding: the two may have been computed in other rows."""
    return all(a == b and abs(p - q) < 1e-5 for (a, p), (b, q) in zip(one, other, strict=True))


def masked(model: Model, text: str, sees: Sequence[int]) -> list[tuple[int, float]]:
    """After one token that sees these places."""
    with Context(model) as context:
        context.append_text(text)
        forward = ForwardPass(context, [5], [30])
        forward.attention_mask([masks.runs_of(sees, context.length + 1)])
        slot = forward.distribution(5)
        return forward.submit().get()[slot]


def plain(model: Model, text: str) -> list[tuple[int, float]]:
    with Context(model) as context:
        context.append_text(text)
        forward = ForwardPass(context, [5], [30])
        slot = forward.distribution(5)
        return forward.submit().get()[slot]


BRANCHES = [[11, 12, 13], [21, 22, 23], [11, 14, 15]]


def tokens_of_tree(model: Model) -> list[int]:
    """All branches in one pass: each token sees the prompt and its own branch."""
    with prompted(model) as context:
        start = context.length
        tokens = [token for branch in BRANCHES for token in branch]
        rows, positions = [], []
        for number, branch in enumerate(BRANCHES):
            first = start + number * len(branch)
            for depth in range(len(branch)):
                places = [*range(start), *range(first, first + depth + 1)]
                rows.append(masks.runs_of(places, start + len(tokens)))
                positions.append(start + depth)
        forward = ForwardPass(context, tokens, positions)
        forward.attention_mask(rows)
        slots = [forward.sample(index) for index in range(len(tokens))]
        answers = forward.submit().get()
        return [answers[slot] for slot in slots]


def tokens_of_forks(model: Model) -> list[int]:
    """The same by a fork for each branch, in one submit."""
    with prompted(model) as context:
        context.flush()
        forwards: list[ForwardPass] = []
        for branch in BRANCHES:
            forward = ForwardPass(context.fork(), branch)
            for index in range(len(branch)):
                forward.sample(index)
            forwards.append(forward)
        return [token for one in submit(forwards) for token in one.tokens]


def about_positions(model: Model) -> dict[str, bool]:
    answers: list[list[tuple[int, float]]] = []
    for positions in (None, [20, 21], [40, 70]):
        with Context(model) as context:
            context.append(model.encode("two words")[:2])
            forward = ForwardPass(context, [5, 6], positions)
            slot = forward.distribution(5)
            answers.append(forward.submit().get()[slot])
            context.append([7])
            context.flush()
    return {"matter": answers[0] != answers[2]}


def about_together(model: Model) -> dict[str, bool]:
    context, other = prompted(model), prompted(model)
    forwards = [ForwardPass(context, [1]), ForwardPass(other, [2]), ForwardPass(context, [3])]
    for forward in forwards:
        forward.sample()
    later = ForwardPass(context)
    later.sample()
    passes: list[Pass] = [*submit(forwards), later.submit()]
    busy = code_of(context.append, [1])
    tokens = [one.tokens for one in passes]
    dropped = ForwardPass(other, [4]).submit()
    dropped.close()
    other.flush()
    return {
        "all": all(len(drawn) == 1 for drawn in tokens) and tokens[2] == tokens[3],
        "busy_or_done": busy in ("busy", "ok"),
        "kept": other.tokens()[-2:] == [2, 4],
        "nothing": submit([]) == [],
    }


def code_of(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The code of the error that the call raises."""
    try:
        function(*args, **options)
    except PieError as error:
        return error.code
    return "ok"


def about_refusals(model: Model) -> dict[str, str]:
    context = prompted(model)
    size = model.info.vocab_size
    twice = ForwardPass(context, [1])
    handle = twice.handle
    spent = ForwardPass(context)
    spent.sample()
    spent.submit().get()
    wrong = ForwardPass(context, [1])
    wrong.attention_mask([[0, 3]])
    return {
        "input_twice": code_of(lambda: call(handle.input, [1], None)),
        "foreign_token": code_of(ForwardPass, context, [size]),
        "positions": code_of(ForwardPass, context, [1, 2], [1]),
        "short_row": code_of(wrong.submit),
        "polarity": code_of(ForwardPass(context).logit_mask, [size]),
        "mask_length": code_of(ForwardPass(context).logit_mask, [0, size - 1]),
        "unknown_option": code_of(ForwardPass(context).sample, no_such_option=1),
        "option_of_generate": code_of(ForwardPass(context).sample, max_tokens=1),
        "temperature": code_of(ForwardPass(context).sample, temperature=-1),
        "index": code_of(asked_about(context, 3).submit),
        "nothing_to_do": code_of(ForwardPass(context).submit),
        "huge_answer": code_of(ForwardPass(context).distribution, 1 << 24),
    }


def asked_about(context: Context, index: int) -> ForwardPass:
    forward = ForwardPass(context, [1])
    forward.sample(index)
    return forward


def call(function: Callable[..., Any], *args: Any) -> Any:
    from inferlet import _host

    return _host.call(function, *args)
