"""The options of one generation, and what they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pie_backend.batch import FORCING_BIAS, Adjustment, Sampling
from pie_daemon.errors import PieError
from pie_daemon.grammar.matcher import Matcher
from pie_daemon.scheduler.drafts import MAX_DRAFT, MAX_MATCH, DraftParams

GREEDY = Sampling()
MAX_STOP_STRINGS = 64
MAX_STOP_CHARS = 2048
"""Of all stop strings together; what they cost is paid under the scheduler's lock."""
MAX_LOGIT_BIASES = 1024
MAX_LOGPROBS = 20
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 0.01, 100.0
MAX_PENALTY = 2.0
"""Of presence and frequency, in both directions."""


@dataclass(frozen=True, slots=True)
class GenerateParams:
    """The options of one generation."""

    sampling: Sampling = GREEDY
    fresh_seed: bool = False
    """The program gave no seed: the service draws one in place of `sampling.seed`."""
    max_tokens: int | None = None
    """None: as many as the model's context and the page pool can hold."""
    stop_tokens: tuple[int, ...] = ()
    """Beside the model's end-of-sequence tokens."""
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False
    adapter: str | None = None
    """Digest of the adapter that computes what is not computed yet; it has to be open."""
    chunk_tokens: int = 1
    """A chunk is ready with so many tokens; 0 hands everything over at the end."""
    drafts: DraftParams | None = None
    """None: no speculation."""
    matcher: Matcher | None = None
    """The constraint's, this generation's own from here on; its first mask is made."""

    def check(self) -> None:
        """Raises: PieError: `invalid-argument`, naming the first option out of range."""
        sampling, stops = self.sampling, self.stop_strings
        _require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens must be at least 1")
        _require(self.chunk_tokens >= 0, "chunk_tokens must not be negative")
        _require(
            math.isfinite(sampling.temperature) and sampling.temperature >= 0,
            "temperature must be a number from 0",
        )
        _require(sampling.top_k >= 0, "top_k must not be negative")
        _require(0 < sampling.top_p <= 1, "top_p must be above 0 and at most 1")
        _require(0 <= sampling.min_p <= 1, "min_p must be from 0 to 1")
        _require(0 <= sampling.seed < 1 << 64, "seed must be an unsigned 64-bit number")
        _require(len(stops) <= MAX_STOP_STRINGS, f"more than {MAX_STOP_STRINGS} stop_strings")
        _require(
            all(stops) and sum(map(len, stops)) <= MAX_STOP_CHARS,
            f"stop_strings must not be empty and have {MAX_STOP_CHARS} characters in all at most",
        )
        _require(
            sampling.logprobs is None or 0 <= sampling.logprobs <= MAX_LOGPROBS,
            f"logprobs must be from 0 to {MAX_LOGPROBS}",
        )
        if sampling.adjustment is not None:
            _check_adjustment(sampling.adjustment)
        if self.drafts is not None:
            _check_drafts(self.drafts)


def _check_adjustment(adjustment: Adjustment) -> None:
    low, high = MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY
    _require(
        low <= adjustment.repetition_penalty <= high,
        f"repetition_penalty must be from {low} to {high}",
    )
    for name in ("presence_penalty", "frequency_penalty"):
        _require(
            abs(getattr(adjustment, name)) <= MAX_PENALTY,
            f"{name} must be from {-MAX_PENALTY} to {MAX_PENALTY}",
        )
    biases = adjustment.logit_bias
    _require(len(biases) <= MAX_LOGIT_BIASES, f"more than {MAX_LOGIT_BIASES} entries in logit_bias")
    _require(
        all(abs(bias) <= FORCING_BIAS for bias in biases.values()),
        f"logit_bias must be from {-FORCING_BIAS} to {FORCING_BIAS}",
    )


def _check_drafts(drafts: DraftParams) -> None:
    _require(0 <= drafts.max_draft <= MAX_DRAFT, f"max_draft must be from 0 to {MAX_DRAFT}")
    _require(1 <= drafts.min_match <= MAX_MATCH, f"min_match must be from 1 to {MAX_MATCH}")
    _require(
        drafts.min_match <= drafts.max_match <= MAX_MATCH,
        f"max_match must be from min_match, {drafts.min_match}, to {MAX_MATCH}",
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise PieError("invalid-argument", message)
