"""What a probe sees: the model's own distribution under the probe's mask, or its hidden state."""

from __future__ import annotations

import torch

from pie_backend.batch import Probe, Probed
from pie_backend.engine.masks import forbid
from pie_backend.engine.sampling import largest
from pie_backend.engine.transformer import Decoder


def look(decoder: Decoder, hidden: torch.Tensor, probes: list[Probe]) -> list[Probed]:
    """hidden [P, hidden], before the last norm: one row for each probe."""
    states = decoder.norm(hidden)
    found: list[Probed] = []
    for state, probe in zip(states, probes, strict=True):
        if probe.kind == "hidden-state":
            found.append(_packed(state))
        else:
            # On the host, where everything else is small: its entropy is in float64.
            logits = decoder.head(state.unsqueeze(0)).float().cpu()
            found.append(_of_logits(forbid(logits, [probe.mask])[0], probe))
    return found


def _of_logits(logits: torch.Tensor, probe: Probe) -> Probed:
    """logits [vocab]"""
    match probe.kind:
        case "logits":
            return _packed(logits)
        case "logprobs":
            return _packed(
                logits.log_softmax(-1)[
                    torch.tensor(probe.tokens, dtype=torch.long, device=logits.device)
                ]
            )
        case "entropy":
            logs = logits.double().log_softmax(-1)
            # A forbidden token's probability is zero, and so is its share: not 0 * -inf.
            return _packed(-(logs.exp() * logs).nan_to_num(nan=0.0).sum().reshape(1))
        case _:
            return _likeliest(logits, probe.top)


def _likeliest(logits: torch.Tensor, num_top: int) -> Probed:
    num_top = min(num_top, len(logits))
    if num_top == 0:
        return Probed(b"", [])
    cut = logits.topk(num_top).values[-1:].unsqueeze(0)
    tokens = largest(logits.unsqueeze(0), cut, num_top)[0].nonzero()[:, 0]
    order = logits[tokens].sort(descending=True, stable=True).indices
    probabilities = logits.softmax(-1)[tokens[order]]
    return Probed(_packed(probabilities).values, tokens[order].tolist())


def _packed(values: torch.Tensor) -> Probed:
    return Probed(values.float().cpu().numpy().tobytes())
