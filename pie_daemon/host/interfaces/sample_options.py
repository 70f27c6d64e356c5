"""The JSON options of `forward-pass.sample`: how one token is drawn."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pie_daemon.errors import PieError
from pie_daemon.host.interfaces.options import GenerateOptions, remembered

_SAMPLING = frozenset(
    (
        *("temperature", "top_k", "top_p", "min_p", "seed", "logit_bias"),
        *("repetition_penalty", "presence_penalty", "frequency_penalty"),
    )
)
KEYS = _SAMPLING | {"draw"}
"""Those of sdk/wit/schemas/sample.json."""


class SampleOptions(GenerateOptions, frozen=True, forbid_unknown_fields=True):
    """Defaults and ranges are those of the schema; only KEYS are taken."""

    draw: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


@remembered
def parse_sample_options(text: str) -> SampleOptions:
    """
    Raises:
        PieError: invalid-argument, naming what is wrong.
    """
    try:
        raw = msgspec.json.decode(text.encode() or b"{}", type=dict[str, object])
        wrong = sorted(raw.keys() - KEYS)
        if not wrong:
            return msgspec.convert(raw, SampleOptions, str_keys=True)
    except msgspec.MsgspecError as error:
        raise PieError("invalid-argument", f"sample options: {error}") from None
    generates = wrong[0] in GenerateOptions.__struct_fields__
    raise PieError(
        "invalid-argument",
        f"sample options: {'`generate` has the' if generates else 'unknown'} key {wrong[0]!r}; "
        f"allowed: {', '.join(sorted(KEYS))}",
    )
