"""Which instances end with their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pie_daemon.listener.session import Session


class Ties:
    """An instance that was not launched detached is tied to the client that launched it.

    When that client goes, the tie passes to another follower; with none left, the instance is
    cancelled after a grace period, unless somebody attaches meanwhile. A client that detaches
    from an instance tied to it leaves it running for good.
    """

    def __init__(
        self, followers: Callable[[str], list[Session]], cancel: Callable[[str], None]
    ) -> None:
        self._followers = followers
        self._cancel = cancel
        self._holder: dict[str, Session | None] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._holder)

    def tie(self, instance_id: str, session: Session) -> None:
        self._holder[instance_id] = session

    def attached(self, instance_id: str, session: Session) -> None:
        """Somebody came (back) in time."""
        if instance_id in self._holder and self._holder[instance_id] is None:
            self._holder[instance_id] = session
            self._timers.pop(instance_id).cancel()

    def detached(self, instance_id: str, session: Session) -> None:
        if self._holder.get(instance_id) is session:
            self.untie(instance_id)

    def untie(self, instance_id: str) -> None:
        self._holder.pop(instance_id, None)
        if timer := self._timers.pop(instance_id, None):
            timer.cancel()

    def gone(self, session: Session, grace_s: float) -> None:
        """To be called once the session follows nothing any more."""
        held = [instance for instance, holder in self._holder.items() if holder is session]
        for instance_id in held:
            heirs = self._followers(instance_id)
            self._holder[instance_id] = heirs[0] if heirs else None
            if not heirs:
                self._timers[instance_id] = asyncio.get_running_loop().call_later(
                    grace_s, self._expire, instance_id
                )

    def close(self) -> None:
        for instance_id in list(self._holder):
            self.untie(instance_id)

    def _expire(self, instance_id: str) -> None:
        self.untie(instance_id)
        self._cancel(instance_id)
