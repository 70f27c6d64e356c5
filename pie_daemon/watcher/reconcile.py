"""Decides what to do about the folder: looks in, actions out. No files, no clock, no threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pie_daemon.watcher.scan import Found, Stamp

Version = tuple[Stamp, Stamp | None]
Pending = Literal["settling", "installing", "leaving", "retrying"]
FIRST_RETRY_S, LAST_RETRY_S = 2.0, 300.0


@dataclass(frozen=True)
class Settling:
    """A program that was never seen before is being written."""

    name: str


@dataclass(frozen=True)
class Install:
    found: Found
    known_digest: str | None
    """Of the content that was handled last under this name; the same content again is no news."""


@dataclass(frozen=True)
class Refuse:
    name: str
    reason: str


@dataclass(frozen=True)
class Remove:
    name: str


Action = Settling | Install | Refuse | Remove


@dataclass(frozen=True)
class Attempt:
    """How an install ended."""

    name: str
    digest: str | None
    """Of the content when it is settled, installed or rejected; None: look again later."""
    failed: bool = False
    """True when trying the same content again may succeed."""


@dataclass
class _Record:
    """What is known about one name."""

    version: Version
    quiet_since_s: float
    handled: Version | None = None
    digest: str | None = None
    gone_since_s: float | None = None
    retry_at_s: float | None = None
    failures: int = 0


class Reconciler:
    """Level-triggered: every call sees the whole folder, so that no lost event matters."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._records: dict[str, _Record] = {}
        self._in_flight: str | None = None
        self._first_look = True

    def observe(self, folder: Mapping[str, Found], now_s: float, wall_ns: int = 0) -> list[Action]:
        """What to do now. At most one install is under way at any time.

        Args:
            folder: everything that is there.
            now_s: a clock that only goes forward.
            wall_ns: Unix time; on the first look, files that are old by it need not settle.
        """
        actions: list[Action] = []
        for name, found in folder.items():
            actions += self._seen(name, found, now_s, wall_ns)
        actions += self._gone(folder, now_s)
        actions += self._due(folder, now_s)
        self._first_look = False
        return actions

    def finished(self, attempt: Attempt, now_s: float) -> None:
        """The install of the last `Install` has ended."""
        self._in_flight = None
        record = self._records.get(attempt.name)
        if record is None:
            return
        record.digest = attempt.digest
        record.retry_at_s = None
        if attempt.failed:
            wait_s = min(FIRST_RETRY_S * 2**record.failures, LAST_RETRY_S)
            record.failures += 1
            record.retry_at_s = now_s + wait_s
        else:
            record.failures = 0

    def next_look_s(self, now_s: float) -> float | None:
        """In how many seconds something is due without any event; None: nothing is."""
        due = [at for name, r in self._records.items() if (at := self._due_at(name, r)) is not None]
        if self._in_flight is not None:
            # What is overdue waits for that install, and its end asks for a look by itself.
            due = [at for at in due if at > now_s]
        return max(min(due) - now_s, 0.0) if due else None

    def pending(self) -> dict[str, Pending]:
        """What is not at rest, for people."""
        states = ((name, self._state(name, record)) for name, record in self._records.items())
        return {name: state for name, state in states if state is not None}

    def _seen(self, name: str, found: Found, now_s: float, wall_ns: int) -> Iterator[Action]:
        record = self._records.get(name)
        if record is None:
            self._records[name] = _Record(found.version, self._quiet_since(found, now_s, wall_ns))
            yield Settling(name)
            return
        record.gone_since_s = None
        if record.version != found.version:
            record.version, record.quiet_since_s = found.version, now_s
            record.retry_at_s, record.failures = None, 0

    def _quiet_since(self, found: Found, now_s: float, wall_ns: int) -> float:
        age_s = (wall_ns - found.changed_at_ns) / 1e9
        return now_s - self._settle_s if self._first_look and age_s > self._settle_s else now_s

    def _gone(self, folder: Mapping[str, Found], now_s: float) -> Iterator[Action]:
        for name in [name for name in self._records if name not in folder]:
            record = self._records[name]
            if record.gone_since_s is None:
                # Many programs save by deleting first; the new file is there a moment later.
                record.gone_since_s = now_s
            elif (at := self._due_at(name, record)) is not None and at <= now_s:
                del self._records[name]
                yield Remove(name)

    def _due(self, folder: Mapping[str, Found], now_s: float) -> Iterator[Action]:
        ready = [
            (record.quiet_since_s, name)
            for name, record in self._records.items()
            if name in folder and (at := self._due_at(name, record)) is not None and at <= now_s
        ]
        for _, name in sorted(ready):
            found, record = folder[name], self._records[name]
            if found.refusal is not None:
                record.handled, record.digest, record.retry_at_s = found.version, None, None
                yield Refuse(name, found.refusal)
            elif self._in_flight is None:
                record.handled, record.retry_at_s = found.version, None
                self._in_flight = name
                yield Install(found, record.digest)

    def _due_at(self, name: str, record: _Record) -> float | None:
        """When something has to be done about a name; None while nothing has, or may."""
        if name == self._in_flight:
            return None
        if record.gone_since_s is not None:
            return record.gone_since_s + self._settle_s
        if record.retry_at_s is not None:
            return record.retry_at_s
        return None if record.handled == record.version else record.quiet_since_s + self._settle_s

    def _state(self, name: str, record: _Record) -> Pending | None:
        if name == self._in_flight:
            return "installing"
        if record.gone_since_s is not None:
            return "leaving"
        if record.retry_at_s is not None:
            return "retrying"
        return None if record.handled == record.version else "settling"
