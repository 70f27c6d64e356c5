"""The border to the host: bindings are looked up when first used, errors get a class of their own.

Outside a component there are no bindings. Importing the SDK works there all the same, so that
editors, type checkers and unit tests see it; only the first host call fails, and says why.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from inferlet.errors import error_for

INTERFACES = ("types", "events", "runtime", "models", "contexts", "inference", "session")


def __getattr__(name: str) -> Any:
    """Makes `_host.models` the binding of that interface, kept once found."""
    if name not in INTERFACES:
        raise AttributeError(name)
    try:
        module = importlib.import_module(f"wit_world.imports.{name}")
    except ModuleNotFoundError:
        raise RuntimeError(
            "no host to call: this code is not running inside Pie "
            "(build it with `bakery build`, run it with `pie run`)"
        ) from None
    globals()[name] = module
    return module


def bind() -> None:
    """Loads every binding; a component does it while it is built, as it finds no modules later."""
    for name in INTERFACES:
        globals()[name] = importlib.import_module(f"wit_world.imports.{name}")


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a host function and raises its error as the exception class of its code."""
    try:
        return function(*args)
    except Exception as error:
        # `Err`, which exists only inside a component; everything else is not ours to translate.
        value: Any = getattr(error, "value", None)
        if not hasattr(value, "code"):
            raise
        raise error_for(value.code, value.message) from None
