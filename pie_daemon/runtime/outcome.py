"""How a program ended and what it used: what the client gets as the last event."""

from __future__ import annotations

from typing import Literal

import msgspec

from pie_daemon.errors import Code

Status = Literal["ok", "error", "cancelled", "trapped", "exceeded"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were found in the KV cache."""
    generated_tokens: int = 0
    cpu_s: float = 0.0
    """Thread time in the sandbox and in host calls."""
    wall_s: float = 0.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    status: Status
    result: str | None = None
    """JSON text that `run` returned; None unless `ok`."""
    code: Code | Literal["program-error", "trap"] | None = None
    """None when `ok`."""
    message: str | None = None
    usage: Usage = Usage()


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """What one launch may use; None leaves it to the operator's limits."""

    max_tokens_total: int | None = None
    """Generated tokens over all generations."""
    max_cpu_s: float | None = None
    deadline_s: float | None = None
    """Wall time from the launch."""
    max_kv_pages: int | None = None
