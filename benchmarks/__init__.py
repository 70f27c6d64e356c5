"""Measurements, side by side in one run. `python -m benchmarks` runs all of them."""

# Decides how torch's threads wait, for every contender alike; so it comes before torch.
import pie_backend.engine  # noqa: F401
