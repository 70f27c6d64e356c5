"""Programs that are woken together go one after the other.

Host calls need the interpreter. Threads that are woken at one time take it from each other at
every call, and each time the system puts one to sleep and wakes another, which costs more than
the call. So a thread that is woken goes when the one before it waits again.

Who computes for long does not hold up the others: a turn that does not end within `PATIENCE_S` is
no longer waited for, and each time that happens twice as many go at a time, until nobody is in
line any more. So programs that compute use all cores, after a moment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

PATIENCE_S = 0.004
"""Most turns take a fortieth of that."""

Go = Callable[[], None]
"""Wakes one thread."""


class Turns:
    """Thread-safe. A matter of order, never of exclusion: any thread may run without a turn."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        watch: Callable[[Turns], None] | None = None,
    ) -> None:
        """`watch` is called when somebody has to wait, and has to see to it that `give_up` is
        called when no turn ends any more. It must be quick."""
        self._clock = clock
        self._watch = watch or Watch()
        self._lock = threading.Lock()
        self._line: deque[Go] = deque()
        self._going: set[Go] = set()
        self._at_a_time = 1
        self._given_s = 0.0
        self.num_ended = 0

    @property
    def num_waiting(self) -> int:
        return len(self._line)

    def awake(self) -> tuple[int, int]:
        """How many wait for their turn, and how many have one that is not too long."""
        with self._lock:
            is_recent = self._clock() - self._given_s <= PATIENCE_S
            return len(self._line), len(self._going) if is_recent else 0

    def ask(self, go: Go) -> None:
        """Has it called when its turn comes, which may be at once."""
        with self._lock:
            if self._clock() - self._given_s > PATIENCE_S:
                self._going.clear()
            self._line.append(go)
            turns = self._give()
            is_first = len(self._line) == 1
        _call(turns)
        if is_first:
            self._watch(self)

    def end(self, go: Go) -> None:
        """Its thread waits again. Harmless for one that has no turn."""
        with self._lock:
            turns = self._end(go)
        _call(turns)

    def leave(self, go: Go) -> None:
        """Its thread has ended, and wants no turn any more."""
        with self._lock:
            if go in self._line:
                self._line.remove(go)
            turns = self._end(go)
        _call(turns)

    def give_up(self) -> None:
        """Those that are going are not waited for any longer."""
        with self._lock:
            self._going.clear()
            self._at_a_time *= 2
            turns = self._give()
        _call(turns)

    def _end(self, go: Go) -> list[Go]:
        if go not in self._going:
            return []
        self._going.remove(go)
        self.num_ended += 1
        return self._give()

    def _give(self) -> list[Go]:
        turns = []
        while self._line and len(self._going) < self._at_a_time:
            turns.append(self._line.popleft())
            self._going.add(turns[-1])
        if turns:
            self._given_s = self._clock()
        if not self._line:
            self._at_a_time = 1
        return turns


class Watch:
    """A thread that gives up on turns that do not end. It sleeps while nobody is in line."""

    def __init__(self) -> None:
        self._called = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, turns: Turns) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._main, args=(turns,), name="pie-turns", daemon=True
                )
                self._thread.start()
        self._called.release()

    def _main(self, turns: Turns) -> None:
        while self._called.acquire():
            while turns.num_waiting:
                num_ended = turns.num_ended
                time.sleep(PATIENCE_S)
                if turns.num_ended == num_ended:
                    turns.give_up()


def _call(turns: list[Go]) -> None:
    for go in turns:
        go()


TURNS = Turns()
"""Of all programs: there is one interpreter."""
