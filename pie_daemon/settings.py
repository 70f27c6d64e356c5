"""How one configuration key describes itself; every section struct annotates its fields with it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Reload = Literal["live", "rebuild", "restart"]
"""What a change needs: nothing, one stage built anew and swapped, or a new process."""

Count = Annotated[int, msgspec.Meta(ge=1)]
Amount = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


def setting(
    description: str, *, reload: Reload, why: str, unit: str = "", secret: bool = False
) -> msgspec.Meta:
    """Metadata of one key: meaning, what a change needs, reason for the default, unit.

    `secret`: the value is never shown.
    """
    extra = {"class": reload, "why": why, "unit": unit, "secret": secret}
    return msgspec.Meta(description=description, extra=extra)
