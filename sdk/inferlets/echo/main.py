"""The smallest inferlet: what comes in goes out."""

from typing import Any


def run(input: Any) -> Any:
    return input
