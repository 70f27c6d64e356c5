"""The border to the host: its bindings once there are any, and its errors as exceptions.

Bindings exist only inside a component, and there only once `bind` has been called: importing the
SDK, and a program's module level, must do without. Editors and tests import it all the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from inferlet.errors import error_for

INTERFACES = (
    "types",
    "events",
    "runtime",
    "models",
    "contexts",
    "adapters",
    "constraints",
    "inference",
    "session",
    "messaging",
    "storage",
    "http",
    "tools",
)


def bind() -> None:
    """Makes `_host.models` and the others the generated bindings."""
    for name in INTERFACES:
        globals()[name] = importlib.import_module(f"wit_world.imports.{name}")


def __getattr__(name: str) -> Any:
    if name not in INTERFACES:
        raise AttributeError(name)
    raise RuntimeError(
        "there is no host to call here: module level runs once, while the component is built; "
        "call Pie from within run()"
    )


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
