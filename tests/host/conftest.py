from __future__ import annotations

import pytest

from support.guest_host import Sandbox, python_sandbox


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """The Python test program, ready to run."""
    return python_sandbox()
