from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A runtime with the program `behave` installed; its pages have to be clean at the end."""
    rig = Rig(tmp_path)
    rig.install("behave")
    yield rig
    rig.close()
