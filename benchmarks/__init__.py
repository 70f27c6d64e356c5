"""Measurements, side by side in one run. `python -m benchmarks` makes all of them."""

import sys
from pathlib import Path

# Decides how torch's threads wait, for every contender alike; so it comes before torch.
import pie_backend.engine  # noqa: F401

# Benchmarks start daemons and build programs the way the tests do.
_TESTS = str(Path(__file__).resolve().parents[1] / "tests")
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)
