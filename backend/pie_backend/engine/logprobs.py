"""Log probabilities of the model's own distribution, for the rows that ask."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pie_backend.batch import Logprobs, Sampling
from pie_backend.engine.sampling import largest, mass


def observe(logits: torch.Tensor, wanted: list[Sampling]) -> Observer | None:
    """logits [R, vocab], as they are before anything changes them; None: no row asks."""
    asking = [i for i, sampling in enumerate(wanted) if sampling.logprobs is not None]
    if not asking:
        return None
    # A copy: drawing may overwrite the logits.
    chosen = logits.index_select(0, torch.tensor(asking, device=logits.device)).float()
    num_top = [min(wanted[i].logprobs or 0, chosen.shape[-1]) for i in asking]
    return Observer(chosen, asking, num_top, len(wanted))


@dataclass(frozen=True, slots=True)
class Observer:
    logits: torch.Tensor
    """float32 [asking rows, vocab]"""
    asking: list[int]
    """Where they are in the batch."""
    num_top: list[int]
    num_rows: int

    def logprobs(self, tokens: list[int]) -> list[Logprobs | None]:
        """tokens: one for each row of the batch, as the result is."""
        drawn = torch.tensor([[tokens[i]] for i in self.asking], device=self.logits.device)
        peaks = self.logits.amax(-1, keepdim=True)
        norms = peaks.double() + mass((self.logits - peaks).exp_()).log()  # [asking, 1]
        chosen = (self.logits.gather(-1, drawn).double() - norms).squeeze(1).tolist()
        tops = self._tops(norms)
        found: list[Logprobs | None] = [None] * self.num_rows
        for i, one, top, count in zip(self.asking, chosen, tops, self.num_top, strict=True):
            found[i] = Logprobs(one, top[:count])
        return found

    def _tops(self, norms: torch.Tensor) -> list[list[tuple[int, float]]]:
        """As many for each row as the one that wants most."""
        count = max(self.num_top)
        if count == 0:
            return [[] for _ in self.asking]
        ids = self._likeliest(count)
        values, order = self.logits.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
        found = (values.double() - norms).tolist()
        return [
            list(zip(row, logprobs, strict=True))
            for row, logprobs in zip(ids.gather(-1, order).tolist(), found, strict=True)
        ]

    def _likeliest(self, count: int) -> torch.Tensor:
        """int64 [asking, count], ascending; of equals at the end the lowest ids"""
        found = self.logits.topk(min(count + 1, self.logits.shape[-1]), sorted=True)
        last, next_ = found.values[:, count - 1], found.values[:, count:]
        if not bool((next_ == last.unsqueeze(1)).any()):
            return found.indices[:, :count].sort(-1).values
        # Somebody is left out who is as likely as the last one in: topk may pick any of them.
        chosen = largest(self.logits, last.unsqueeze(1), count)
        return chosen.nonzero()[:, 1].view(-1, count)
