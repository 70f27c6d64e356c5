"""The kernels that tests here compute with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pie_backend.engine.ops.native.build import NoKernels
from pie_backend.engine.ops.native.library import Kernels


@pytest.fixture(params=[True, False], ids=["tiles", "no-tiles"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """With AMX, where the processor has it, and without."""
    try:
        yield Kernels(tiles=request.param)
        Kernels()
    except NoKernels as why:
        pytest.skip(str(why))
