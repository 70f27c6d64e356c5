"""The client for programs without asyncio: `AsyncClient` in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, TypeVar, Unpack

from pie_client import wire
from pie_client.aio import AsyncClient, LaunchBudgets, Progress
from pie_client.errors import PieError
from pie_client.events import Event
from pie_client.process import AsyncProcess, parse_result

_T = TypeVar("_T")


class _Portal:
    """An event loop in a daemon thread; it keeps the heartbeat while the caller computes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="pie_client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """The coroutine's result; an interrupt of the caller cancels it."""
        if not self._thread.is_alive():
            coroutine.close()
            raise PieError("closed", "the client was closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise PieError("closed", "the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
            # Calls of other threads that still wait end with an error instead of never.
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


class Process:
    """One instance. Made by `Client.launch` and `Client.attach`."""

    def __init__(self, portal: _Portal, process: AsyncProcess) -> None:
        self._portal = portal
        self._process = process
        self.id = process.id
        self.program = process.program
        self.digest = process.digest
        # Taken from the loop's thread many at a time, handed out one by one.
        self._ready: deque[tuple[int, Event]] = deque()
        self._last_seq = process.last_seq

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.program}>"

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        """Stops a program that this client launched; detaches from one that is to go on."""
        self._portal.run(self._process.__aexit__())

    @property
    def finished(self) -> bool:
        """The outcome is here, or will never come."""
        return self._process.finished

    @property
    def last_seq(self) -> int:
        """The last event taken; `attach(id, after=last_seq)` goes on behind it."""
        return self._last_seq

    def events(self) -> Iterator[Event]:
        """Everything the program says, until it has finished; may be left and taken up again."""
        iterator = object()
        self._process.iterators.add(iterator)
        try:
            while True:
                if not self._ready:
                    batch = self._portal.run(self._process.next_batch(self._last_seq))
                    self._ready.extend(batch)
                if not self._ready:
                    return
                self._last_seq, event = self._ready.popleft()
                yield event
        finally:
            self._process.iterators.discard(iterator)

    def outcome(self) -> wire.Outcome:
        """How it ended. Events are discarded while nobody iterates over them."""
        return self._portal.run(self._process.outcome())

    def result(self) -> Any:
        """The program's result, parsed where it is JSON; ProgramError when it has none."""
        return parse_result(self.outcome())

    def send(self, message: object) -> None:
        """A message to the program: a string as it is, anything else as JSON."""
        self._portal.run(self._process.send(message))

    def send_blob(self, name: str, data: bytes) -> None:
        """Bytes to the program, of any size up to the daemon's limit."""
        self._portal.run(self._process.send_blob(name, data))

    def close_input(self) -> None:
        """Tells the program that no more messages will come."""
        self._portal.run(self._process.close_input())

    def terminate(self, reason: str = "") -> None:
        """Stops it; its outcome will be `cancelled`."""
        self._portal.run(self._process.terminate(reason))

    def detach(self) -> None:
        """Leaves it running; `attach(id, after=last_seq)` comes back to it."""
        self._portal.run(self._process.detach(self._last_seq))


class Client:
    """A session with the daemon; use `connect`, and `with` or `close`. Thread-safe."""

    def __init__(self, portal: _Portal, client: AsyncClient) -> None:
        self._portal = portal
        self._client = client
        self.endpoint = client.endpoint

    @classmethod
    def connect(
        cls,
        endpoint: str | None = None,
        *,
        timeout_s: float = 5.0,
        wait: bool = False,
        reconnect_s: float = 10.0,
        name: str = "pie_client",
    ) -> Client:
        """Connects to the daemon; `endpoint` None: that of this user's own daemon.

        NotRunning when nothing listens there (with `wait`: not within `timeout_s`). A connection
        that is lost later is tried again for `reconnect_s`.
        """
        portal = _Portal()
        try:
            client = portal.run(
                AsyncClient.connect(
                    endpoint, timeout_s=timeout_s, wait=wait, reconnect_s=reconnect_s, name=name
                )
            )
        except BaseException:
            portal.close()
            raise
        return cls(portal, client)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Says goodbye. Programs that this client launched and did not detach from are stopped."""
        try:
            self._portal.run(self._client.close())
        except PieError:
            return
        self._portal.close()

    @property
    def server(self) -> str:
        """What the daemon calls itself, with its version."""
        return self._client.server

    def ping(self) -> float:
        """The seconds that a round trip takes."""
        return self._portal.run(self._client.ping())

    def status(self) -> wire.Status:
        return self._portal.run(self._client.status())

    def instances(self) -> list[wire.InstanceInfo]:
        """Those that run and those that have ended lately."""
        return self._portal.run(self._client.instances())

    def programs(self) -> list[wire.ProgramInfo]:
        return self._portal.run(self._client.programs())

    def upload(
        self, source: Path | str | bytes, name: str | None = None, progress: Progress | None = None
    ) -> wire.ProgramInfo:
        """Installs a component into this user's namespace; resumes after a lost connection.

        `name` overrides that of the manifest; without either it is the stem of the file.
        """
        return self._portal.run(self._client.upload(source, name, progress))

    def launch(
        self,
        program: str,
        input: object = None,
        *,
        detached: bool = False,
        **budgets: Unpack[LaunchBudgets],
    ) -> Process:
        """Starts a program. `input`: JSON text as it is, anything else is made JSON.

        Not `detached`: it is stopped when this client goes away. Budgets: `max_tokens_total`,
        `max_cpu_s`, `deadline_s`, `max_kv_pages`; without one, what the daemon grants.
        """
        launch = self._client.launch(program, input, detached=detached, **budgets)
        return Process(self._portal, self._portal.run(launch))

    def attach(self, id: str, after: int = 0) -> Process:
        """Follows an instance, from the first event after number `after` that is still kept."""
        return Process(self._portal, self._portal.run(self._client.attach(id, after)))

    def terminate(self, id: str, reason: str = "") -> None:
        """Stops an instance; it ends within a second."""
        self._portal.run(self._client.terminate(id, reason))
