"""The JSON options of `runtime.launch`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pie_daemon.errors import PieError


class LaunchOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ranges are those of sdk/wit/schemas/launch.json; None leaves it to what the parent has."""

    max_tokens_total: Annotated[int, Meta(ge=1)] | None = None
    max_cpu_s: Annotated[float, Meta(gt=0)] | None = None
    deadline_s: Annotated[float, Meta(gt=0)] | None = None
    max_kv_pages: Annotated[int, Meta(ge=1)] | None = None


def parse_launch_options(text: str) -> LaunchOptions:
    """
    Raises:
        PieError: invalid-argument, also for a key that is not known.
    """
    try:
        return msgspec.json.decode(text.encode() or b"{}", type=LaunchOptions)
    except msgspec.DecodeError as error:
        allowed = ", ".join(LaunchOptions.__struct_fields__)
        raise PieError("invalid-argument", f"launch options: {error}; allowed: {allowed}") from None
