from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.gateway import Endpoint, endpoint
from support.rig import Rig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Real programs over the dummy backend, the same for all tests of a file."""
    rig = Rig(tmp_path_factory.mktemp("rig"))
    for name in ("chat", "text-completion", "actor", "echo"):
        rig.install(name)
    yield rig
    rig.close()


@pytest.fixture
async def served(rig: Rig, tmp_path: Path) -> AsyncIterator[Endpoint]:
    """An endpoint over them; afterwards no program and no page is left."""
    async with endpoint(rig, tmp_path) as served:
        yield served
    rig.check_empty()
