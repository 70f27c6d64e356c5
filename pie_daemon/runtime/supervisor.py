"""Owner of all instances: admits, starts, finds, ends and forgets them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from pie_daemon.errors import PieError
from pie_daemon.host.context import Models
from pie_daemon.host.guest import THREAD_STACK_BYTES
from pie_daemon.runtime.config import LimitsConfig, RuntimeConfig
from pie_daemon.runtime.execution import Execution
from pie_daemon.runtime.grants import effective_grants
from pie_daemon.runtime.instance import Instance, InstanceInfo, Launch, OutputLimits
from pie_daemon.runtime.outcome import Budgets
from pie_daemon.runtime.programs import ProgramStore
from pie_daemon.runtime.sandbox import Sandbox

_FORCED_S = 5.0
"""How long a program that was stopped may take to unwind before the daemon goes on without it."""


class Supervisor:
    """Thread-safe. `limits` is asked anew at every launch, so that it can change meanwhile."""

    def __init__(
        self,
        programs: ProgramStore,
        sandbox: Sandbox,
        models: Models,
        runtime: RuntimeConfig,
        limits: Callable[[], LimitsConfig],
    ) -> None:
        self._programs = programs
        self._sandbox = sandbox
        self._models = models
        self._runtime = runtime
        self._limits = limits
        self._lock = threading.Lock()
        self._instances: dict[str, Instance] = {}
        self._num_live = 0
        self._closing = False
        threading.stack_size(THREAD_STACK_BYTES)

    def launch(
        self, program: str, program_input: str, username: str, budgets: Budgets | None = None
    ) -> Instance:
        """Starts a program and returns at once.

        Raises:
            PieError: not-found without such a program, quota when too many run, closed while
                the daemon is shutting down.
        """
        self.reap()
        found = self._programs.resolve(username, program)
        limits = self._limits()
        launch = Launch(
            id=secrets.token_hex(6),
            program=found,
            username=username,
            input=program_input,
            grants=effective_grants(found.manifest, budgets or Budgets(), limits),
        )
        body = Execution(launch, self._sandbox, self._models)
        output = OutputLimits(limits.event_bytes, limits.send_stall_s, limits.inbox_bytes)
        instance = Instance(launch, output, body, self._ended)
        self._admit(instance, limits.instances)
        self._programs.acquire(found)
        self._start(instance)
        return instance

    def _start(self, instance: Instance) -> None:
        try:
            instance.start()
        except RuntimeError as error:  # the system gives no more threads
            self._ended(instance)
            with self._lock:
                del self._instances[instance.id]
            raise PieError(
                "exhausted", f"{error}; lower limits.instances or raise the system's TasksMax"
            ) from None

    def _admit(self, instance: Instance, most: int) -> None:
        with self._lock:
            if self._closing:
                raise PieError("closed", "the daemon is shutting down and starts nothing new")
            if self._num_live >= most:
                raise PieError(
                    "quota",
                    f"{self._num_live} programs are running, the most that "
                    f"limits.instances={most} allows; wait until one has ended",
                )
            self._num_live += 1
            self._instances[instance.id] = instance

    def _ended(self, instance: Instance) -> None:
        self._programs.release(instance.launch.program)
        with self._lock:
            self._num_live -= 1

    def get(self, instance_id: str) -> Instance:
        instance = self._instances.get(instance_id)
        if instance is None:
            raise PieError("not-found", f"no instance has the id {instance_id!r}")
        return instance

    def instances(self) -> list[InstanceInfo]:
        """The running ones and the finished ones that are still kept, oldest first."""
        self.reap()
        with self._lock:
            kept = list(self._instances.values())
        return [instance.info() for instance in kept]

    def terminate(self, instance_id: str, reason: str) -> None:
        self.get(instance_id).cancel(reason)

    def reap(self) -> None:
        """Forgets instances that finished longer ago than `runtime.keep_finished_s`, and the
        oldest ones when more are kept than may run at a time."""
        keep_s = self._runtime.keep_finished_s
        most = self._limits().instances
        with self._lock:
            finished = [one for one in self._instances.values() if one.done]
            surplus = max(0, len(finished) - most)
            for number, instance in enumerate(finished):
                if number < surplus or instance.finished_for_s > keep_s:
                    del self._instances[instance.id]

    def close(self, drain_s: float) -> None:
        """Starts nothing new, gives the running ones `drain_s` to end, then stops them."""
        with self._lock:
            self._closing = True
            live = [one for one in self._instances.values() if not one.done]
        _join(live, drain_s)
        for instance in live:
            if not instance.done:
                instance.mailbox.stop("shutdown", "the daemon is shutting down")
        _join(live, _FORCED_S)


def _join(instances: list[Instance], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    for instance in instances:
        instance.join(max(0.0, end - time.monotonic()))
