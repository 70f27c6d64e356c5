"""The host side of package `pie:inferlet`: one module per WIT interface, and their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pie_daemon.host.abi import Interface
from pie_daemon.host.context import Model
from pie_daemon.host.guest import current
from pie_daemon.host.interfaces import (
    adapters,
    constraints,
    contexts,
    events,
    http,
    inference,
    messaging,
    models,
    passes,
    runtime,
    session,
    storage,
    tools,
)
from pie_daemon.host.topics import Subscription
from pie_daemon.host.waitable import Waitable

VERSION = "0.1.0"
"""Of the WIT package; see `abi_versions` for what runs on it."""


def _bind(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a function the instance that calls it as its first argument."""

    def call(*arguments: Any) -> Any:
        return function(current(), *arguments)

    return call


def _interface(
    name: str,
    functions: Mapping[str, Callable[..., Any]],
    resources: Mapping[str, type] | None = None,
) -> Interface:
    return Interface(
        f"pie:inferlet/{name}@{VERSION}",
        functions={key: _bind(function) for key, function in functions.items()},
        resources=resources or {},
    )


INTERFACES: tuple[Interface, ...] = (
    _interface("types", {}),
    _interface("events", events.FUNCTIONS, {"waitable": Waitable}),
    _interface("runtime", runtime.FUNCTIONS, {"child": runtime.Child}),
    _interface("models", models.FUNCTIONS, {"model": Model}),
    _interface("contexts", contexts.FUNCTIONS, {"context": contexts.Context}),
    _interface("adapters", adapters.FUNCTIONS, {"adapter": adapters.Adapter}),
    _interface("constraints", constraints.FUNCTIONS, {"constraint": constraints.Constraint}),
    _interface(
        "inference",
        {**inference.FUNCTIONS, **passes.FUNCTIONS},
        {
            "generation": inference.Generation,
            "forward-pass": passes.ForwardPass,
            "pass": passes.Pass,
        },
    ),
    _interface("session", session.FUNCTIONS),
    _interface("messaging", messaging.FUNCTIONS, {"subscription": Subscription}),
    _interface("storage", storage.FUNCTIONS),
    _interface("http", http.FUNCTIONS, {"exchange": http.Exchange}),
    _interface("tools", tools.FUNCTIONS, {"call": tools.Call}),
)
