"""The JSON options of `generate`, checked against what the engine can do."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from pie_backend.batch import FORCING_BIAS, Adjustment, Sampling
from pie_daemon.errors import PieError
from pie_daemon.scheduler.drafts import MAX_DRAFT, MAX_MATCH, DraftParams
from pie_daemon.scheduler.params import (
    MAX_LOGIT_BIASES,
    MAX_LOGPROBS,
    MAX_PENALTY,
    MAX_REPETITION_PENALTY,
    MIN_REPETITION_PENALTY,
)

_Stop = Annotated[str, Meta(min_length=1)]
_Penalty = Annotated[float, Meta(ge=-MAX_PENALTY, le=MAX_PENALTY)]
_Bias = Annotated[float, Meta(ge=-FORCING_BIAS, le=FORCING_BIAS)]
_TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_NO_ADJUSTMENT = Adjustment()
_MaxDraft = Annotated[int, Meta(ge=0, le=MAX_DRAFT)]
_Match = Annotated[int, Meta(ge=1, le=MAX_MATCH)]
_DEFAULT_DRAFTS = DraftParams()
_MAX_REMEMBERED = 256
"""Characters of options; what is longer has biases, and is seldom written twice."""
_T = TypeVar("_T")


def remembered(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """What programs write again and again is read once."""
    before = lru_cache(maxsize=256)(read)
    return lambda text: before(text) if len(text) <= _MAX_REMEMBERED else read(text)


class NgramSpeculation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_draft: _MaxDraft = _DEFAULT_DRAFTS.max_draft
    min_match: _Match = _DEFAULT_DRAFTS.min_match
    max_match: _Match | None = None


class GenerateOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults and ranges are those of sdk/wit/schemas/generate.json."""

    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.0
    top_k: Annotated[int, Meta(ge=0)] = 0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] = 128
    stop_tokens: list[Annotated[int, Meta(ge=0)]] = []
    stop_strings: list[_Stop] = []
    ignore_eos: bool = False
    chunk_tokens: Annotated[int, Meta(ge=0)] = 1
    repetition_penalty: Annotated[
        float, Meta(ge=MIN_REPETITION_PENALTY, le=MAX_REPETITION_PENALTY)
    ] = 1.0
    presence_penalty: _Penalty = 0.0
    frequency_penalty: _Penalty = 0.0
    logit_bias: Annotated[dict[_TokenId, _Bias], Meta(max_length=MAX_LOGIT_BIASES)] = {}
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    ngram_speculation: _MaxDraft | NgramSpeculation = 0

    def sampling(self) -> Sampling:
        adjustment = Adjustment(
            self.repetition_penalty, self.presence_penalty, self.frequency_penalty, self.logit_bias
        )
        return Sampling(
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.seed or 0,
            None if adjustment == _NO_ADJUSTMENT else adjustment,
            self.logprobs,
        )

    def drafts(self) -> DraftParams | None:
        wanted = self.ngram_speculation
        if isinstance(wanted, int):
            wanted = NgramSpeculation(max_draft=wanted)
        if wanted.max_draft == 0:
            return None
        max_match = wanted.max_match or max(wanted.min_match, _DEFAULT_DRAFTS.max_match)
        return DraftParams(wanted.max_draft, wanted.min_match, max_match)


_KEYS = frozenset(GenerateOptions.__struct_fields__)


def parse_options(text: str) -> GenerateOptions:
    """
    Raises:
        PieError: invalid-argument, naming the key that is not known or out of range.
    """
    try:
        raw = msgspec.json.decode(text.encode() or b"{}", type=dict[str, object])
    except msgspec.DecodeError as error:
        raise PieError("invalid-argument", f"generate options: {error}") from None
    _refuse_keys(raw)
    try:
        return msgspec.convert(raw, GenerateOptions, str_keys=True)
    except msgspec.ValidationError as error:
        raise PieError("invalid-argument", f"generate options: {error}") from None


def _refuse_keys(raw: dict[str, object]) -> None:
    unknown = sorted(raw.keys() - _KEYS)
    if unknown:
        allowed = ", ".join(sorted(_KEYS))
        raise PieError(
            "invalid-argument", f"generate options: unknown key {unknown[0]!r}; allowed: {allowed}"
        )
