"""Whether generated tokens are those of a reference, ties aside."""

from __future__ import annotations

import warnings

from support.checkpoints import Checkpoint

# Where the reference itself cannot tell two tokens apart, either answer is right.
_TIE = 1e-4


def assert_same(checkpoint: Checkpoint, prompt: list[int], generated: list[int]) -> None:
    expected = checkpoint.generate(prompt, len(generated))
    if generated == expected:
        return
    pairs = zip(generated, expected, strict=True)
    first = next(i for i, (found, wanted) in enumerate(pairs) if found != wanted)
    top = checkpoint.logits(prompt + expected[:first])[-1].topk(2).values
    gap = float(top[0] - top[1])
    assert gap < _TIE, f"token {first} of {len(prompt)}: {generated} != {expected}, gap {gap:.1e}"
    warnings.warn(
        f"tie at token {first}: the reference's top two are {gap:.1e} apart", stacklevel=2
    )
