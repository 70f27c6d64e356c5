"""The kernels that tests here compute with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pie_backend.engine.ops.native.library import Kernels
from support.processors import KINDS, OWN, own_kernels, use

_WITHOUT_TILES = "own, without tiles"


@pytest.fixture(params=[OWN, _WITHOUT_TILES, *KINDS])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    """Of this processor and of those that are not here."""
    if request.param != _WITHOUT_TILES:
        use(monkeypatch, request.param)
    elif "AMX" not in own_kernels():
        pytest.skip("this processor has no tiles")
    yield Kernels(tiles=request.param != _WITHOUT_TILES)
    Kernels()
