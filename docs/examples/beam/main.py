from math import log

from inferlet import Arguments, Context, ForwardPass, Model, submit


def run(input: dict) -> dict:
    arguments = Arguments(input)
    prompt = arguments.text("prompt")
    width = arguments.integer("width", 4, minimum=1, maximum=32)
    length = arguments.integer("length", 16, minimum=1, maximum=256)
    arguments.finish()

    model = Model.open()
    trunk = Context(model)
    trunk.append_text(prompt)
    trunk.flush()  # computed once; the forks share it

    beams: list[tuple[float, list[int], Context]] = [(0.0, [], trunk)]
    for _ in range(length):
        forwards = [ForwardPass(context, tokens[-1:]) for _, tokens, context in beams]
        likely = [forward.distribution(width) for forward in forwards]
        passes = submit(forwards)  # all beams in one batch
        found = [
            (score + log(probability), [*tokens, token], context)
            for (score, tokens, context), one, slot in zip(beams, passes, likely, strict=True)
            for token, probability in one.get()[slot]
        ]
        best = sorted(found, key=lambda beam: -beam[0])[:width]
        kept = [(score, tokens, context.fork()) for score, tokens, context in best]
        for _, _, context in beams:
            context.close()
        beams = kept

    score, tokens, _ = beams[0]
    return {"text": model.decode(tokens), "tokens": tokens, "score": score}
