"""The questions, one module each. The table of them is in `benchmarks/__main__.py`."""
