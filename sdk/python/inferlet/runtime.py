"""What runs this program: who it is, its log, its budgets, and launching other programs."""

from __future__ import annotations

import json
from typing import Any, Literal

from inferlet import _host, _json
from inferlet.errors import Timeout, error_for
from inferlet.events import Waitable, wait_any

Level = Literal["debug", "info", "warning", "error"]


def version() -> str:
    """The daemon's version."""
    return str(_host.runtime.version())


def instance_id() -> str:
    return str(_host.runtime.instance_id())


def program() -> str:
    """The name this program was launched under."""
    return str(_host.runtime.program())


def username() -> str:
    return str(_host.runtime.username())


def log(message: str, level: Level = "info") -> None:
    """A line in the instance's log (`pie logs ID`)."""
    _host.runtime.log(level, message)


def budget() -> dict[str, Any]:
    """What is left of the budgets of this launch; a key is absent where nothing was set."""
    left: dict[str, Any] = json.loads(_host.runtime.budget())
    return left


class Child:
    """Another inferlet, launched by this one. It ends with this program unless it is detached."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.id = str(handle.id())
        # Without a handle the host lets a child run on, and losing a variable must not do that.
        _held[:] = [child for child in _held if not child.done]
        _held.append(self)

    @property
    def done(self) -> bool:
        return self.handle.outcome() is not None

    def result(self, timeout_s: float | None = None) -> Any:
        """Waits for its end; what it returned, or its error raised."""
        if not wait_any([self], timeout_s):
            raise Timeout(f"child {self.id} is still running after {timeout_s} s")
        outcome = self.handle.outcome()
        value = outcome.value
        if hasattr(value, "code"):
            raise error_for(value.code, value.message)
        return json.loads(value)

    def cancel(self) -> None:
        self.handle.cancel()

    def detach(self) -> None:
        """Lets it run on by itself, also beyond the end of this program; it is out of reach then.

        What it may use stays a share of what this program was given.
        """
        if self in _held:
            _held.remove(self)
        self.handle.__exit__(None, None, None)

    def waitable(self) -> Waitable:
        """Ready once it has ended."""
        return Waitable(self.handle.subscribe())


_held: list[Child] = []


def launch(
    program: str,
    input: Any = None,
    *,
    max_tokens_total: int | None = None,
    max_cpu_s: float | None = None,
    deadline_s: float | None = None,
    max_kv_pages: int | None = None,
) -> Child:
    """Starts another inferlet with `input`.

    Its grants are this program's, cut by its manifest. What it uses is taken from this program's
    budgets; its own can only make that less.
    """
    budgets = {
        "max_tokens_total": max_tokens_total,
        "max_cpu_s": max_cpu_s,
        "deadline_s": deadline_s,
        "max_kv_pages": max_kv_pages,
    }
    given = {name: value for name, value in budgets.items() if value is not None}
    text = _json.dumps({} if input is None else input)
    return Child(_host.call(_host.runtime.launch, program, text, json.dumps(given)))
