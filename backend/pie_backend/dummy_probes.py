"""What the probes of the dummy backend see: no distribution, but one to recognise a token by.

The token that a greedy sample would draw comes first, and the ids after it, round the vocabulary,
each less likely than the one before. All numbers are exact as 32-bit floats, but for masks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from pie_backend.batch import Probe, Probed

_STEP = 1 / 8


def expected_probe(probe: Probe, chosen: int, vocab_size: int, mark: bytes) -> Probed:
    """`chosen`: what greedy would draw under the probe's mask; `mark`: of the probed token."""
    match probe.kind:
        case "hidden-state":
            return _packed([float(mark[0])])
        case "entropy":
            return _packed([chosen * _STEP])
        case "logits":
            return _packed(_score(probe, chosen, token, vocab_size) for token in range(vocab_size))
        case "logprobs":
            return _packed(_score(probe, chosen, token, vocab_size) for token in probe.tokens)
        case _:
            return _likeliest(probe, chosen, vocab_size)


def _likeliest(probe: Probe, chosen: int, vocab_size: int) -> Probed:
    tokens = [(chosen + i) % vocab_size for i in range(min(probe.top, vocab_size))]
    tokens = [token for token in tokens if _allows(probe.mask, token)]
    return Probed(_packed(2.0**-i for i in range(1, len(tokens) + 1)).values, tokens)


def _score(probe: Probe, chosen: int, token: int, vocab_size: int) -> float:
    if not _allows(probe.mask, token):
        return float("-inf")
    return -((token - chosen) % vocab_size) * _STEP


def _allows(mask: bytes | None, token: int) -> bool:
    return mask is None or bool(mask[token // 8] >> token % 8 & 1)


def _packed(values: Iterable[float]) -> Probed:
    return Probed(array("f", values).tobytes())
