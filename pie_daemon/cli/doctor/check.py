"""What a check is, and how it is run so that none can spoil the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

SCHEMA = 1
Status = Literal["ok", "warn", "fail", "skip"]


class Result(msgspec.Struct, frozen=True):
    """The answer of one check."""

    status: Status
    summary: str
    why: str = ""
    """What does not work because of it; empty when ok."""
    fix: str = ""
    """What to do; empty when there is nothing to do."""
    data: dict[str, Any] = {}


def ok(summary: str, **data: Any) -> Result:
    return Result("ok", summary, data=data)


def skip(summary: str) -> Result:
    return Result("skip", summary)


class Check(msgspec.Struct, frozen=True):
    id: str
    run: Callable[[], Result]
    timeout_s: float = 10.0


class Report(msgspec.Struct, frozen=True):
    id: str
    status: Status
    summary: str
    why: str
    fix: str
    data: dict[str, Any]


def run_all(checks: Sequence[Check]) -> list[Report]:
    """All at the same time, each in a thread; one that raises or hangs has failed, no more."""
    boxes: list[list[Result]] = [[] for _ in checks]
    threads = [
        threading.Thread(target=_fill, args=(check, box), daemon=True)
        for check, box in zip(checks, boxes, strict=True)
    ]
    for thread in threads:
        thread.start()
    reports = []
    for check, box, thread in zip(checks, boxes, threads, strict=True):
        thread.join(check.timeout_s)
        result = box[0] if box else _timed_out(check)
        reports.append(Report(check.id, **msgspec.structs.asdict(result)))
    return reports


def _fill(check: Check, box: list[Result]) -> None:
    try:
        box.append(check.run())
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding
        text = f"the check itself failed: {type(error).__name__}: {error}"
        box.append(Result("fail", text, "its subject may be broken", "report this as a bug"))


def _timed_out(check: Check) -> Result:
    return Result(
        "fail",
        f"no answer within {check.timeout_s:g} s",
        "something it needs hangs: a file system, a process, an import",
        "try again; see what the machine is busy with",
    )
