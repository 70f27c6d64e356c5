"""Owner of all instances: admits, starts, finds, ends and forgets them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

import msgspec

from pie_daemon.errors import PieError
from pie_daemon.host.guest import THREAD_STACK_BYTES
from pie_daemon.runtime.config import LimitsConfig, RuntimeConfig
from pie_daemon.runtime.execution import Execution, Shared
from pie_daemon.runtime.family import Accounts, Family
from pie_daemon.runtime.finished import Finished
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
        shared: Shared,
        runtime: RuntimeConfig,
        limits: Callable[[], LimitsConfig],
    ) -> None:
        self._programs = programs
        self._sandbox = sandbox
        self._shared = shared
        self._runtime = runtime
        self._limits = limits
        self._lock = threading.Lock()
        self._instances: dict[str, Instance] = {}
        self._finished = Finished()
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
        found = self._programs.resolve(username, program)
        grants = effective_grants(found.manifest, budgets or Budgets(), self._limits())
        new_id = secrets.token_hex(6)
        launch = Launch(
            id=new_id,
            program=found,
            username=username,
            input=program_input,
            grants=grants,
            accounts=Accounts.open(new_id, grants, None),
            family=Family(new_id),
        )
        return self._begin(launch)

    def launch_child(
        self, parent: Instance, program: str, program_input: str, budgets: Budgets
    ) -> Instance:
        """Like `launch`, out of what the parent has left.

        Raises:
            PieError: also quota for too many or too deep, exhausted for an input too large.
        """
        limits, above = self._limits(), parent.launch
        _check_descent(above, program_input, limits)
        found = self._programs.resolve(above.username, program)
        ends = [end_s for end_s in (budgets.deadline_s, parent.left_s) if end_s is not None]
        budgets = msgspec.structs.replace(budgets, deadline_s=min(ends, default=None))
        grants = effective_grants(found.manifest, budgets, limits, above.grants)
        new_id = secrets.token_hex(6)
        launch = Launch(
            id=new_id,
            program=found,
            username=above.username,
            input=program_input,
            grants=grants,
            accounts=Accounts.open(new_id, grants, above.accounts),
            family=above.family,
            depth=above.depth + 1,
        )
        return self._begin(launch)

    def _begin(self, launch: Launch) -> Instance:
        self.reap()
        limits = self._limits()
        body = Execution(launch, self._sandbox, self._shared, self.launch_child)
        output = OutputLimits(limits.event_bytes, limits.send_stall_s, limits.inbox_bytes)
        instance = Instance(launch, output, body, self._ended)
        self._admit(instance, limits)
        self._programs.acquire(launch.program)
        self._start(instance)
        return instance

    def _start(self, instance: Instance) -> None:
        try:
            instance.start()
        except RuntimeError as error:  # the system gives no more threads
            self._ended(instance)
            with self._lock:
                self._finished.discard(instance)
                del self._instances[instance.id]
            raise PieError(
                "exhausted", f"{error}; lower limits.instances or raise the system's TasksMax"
            ) from None

    def _admit(self, instance: Instance, limits: LimitsConfig) -> None:
        most, family = limits.instances, instance.launch.family
        with self._lock:
            if self._closing:
                raise PieError("closed", "the daemon is shutting down and starts nothing new")
            if self._num_live >= most:
                raise PieError(
                    "quota",
                    f"{self._num_live} programs are running, the most that "
                    f"limits.instances={most} allows; wait until one has ended",
                )
            if instance.launch.depth and family.num_children >= limits.children:
                raise PieError(
                    "quota",
                    f"{family.num_children} programs run below {family.root}, the most that "
                    f"limits.children={limits.children} allows; wait until one has ended",
                )
            family.num_children += instance.launch.depth > 0
            self._num_live += 1
            self._instances[instance.id] = instance

    def _ended(self, instance: Instance) -> None:
        self._programs.release(instance.launch.program)
        with self._lock:
            self._num_live -= 1
            instance.launch.family.num_children -= instance.launch.depth > 0
            self._finished.add(instance)

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
        keep_s, most = self._runtime.keep_finished_s, self._limits().instances
        with self._lock:
            for instance in self._finished.forget(keep_s, most):
                self._instances.pop(instance.id, None)

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


def _check_descent(above: Launch, program_input: str, limits: LimitsConfig) -> None:
    if above.depth >= limits.child_depth:
        raise PieError(
            "quota",
            f"this program is itself {above.depth} launches deep, the most that "
            f"limits.child_depth={limits.child_depth} allows",
        )
    size_bytes = len(program_input.encode())
    if size_bytes > limits.inbox_bytes:
        raise PieError(
            "exhausted",
            f"an input of {size_bytes} bytes is over limits.inbox_bytes={limits.inbox_bytes}",
        )


def _join(instances: list[Instance], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    for instance in instances:
        instance.join(max(0.0, end - time.monotonic()))
