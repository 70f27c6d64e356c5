"""One launch from grants to outcome: builds the guest, runs the component, counts what it used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec
import structlog

from pie_daemon.errors import CODES, Code, PieError
from pie_daemon.host.context import HostContext, HostPorts, Models
from pie_daemon.host.run import Outcome as RunOutcome
from pie_daemon.host.stop import Reason
from pie_daemon.host.topics import Topics
from pie_daemon.runtime.child import Child
from pie_daemon.runtime.outcome import Budgets, Outcome, Status, Usage
from pie_daemon.runtime.outside.tools import ProgramTools, Tools
from pie_daemon.runtime.outside.web import ProgramWeb, Web
from pie_daemon.runtime.sandbox import Sandbox
from pie_daemon.runtime.saved import SavedContexts, UserContexts
from pie_daemon.runtime.storage import Owner, ProgramStorage, Storage

if TYPE_CHECKING:
    from pie_daemon.host.interfaces.launch import LaunchOptions
    from pie_daemon.runtime.instance import Instance, Launch

_log = structlog.get_logger()
_STATUS: dict[Reason, tuple[Status, Code]] = {
    "cancelled": ("cancelled", "cancelled"),
    "shutdown": ("cancelled", "interrupted"),
    "cpu": ("exceeded", "quota"),
    "memory": ("exceeded", "quota"),
    "deadline": ("exceeded", "timeout"),
}


@dataclass(frozen=True, slots=True)
class Shared:
    """What all instances of a daemon work with."""

    models: Models
    topics: Topics
    storage: Storage
    web: Web
    tools: Tools
    saved: SavedContexts


LaunchChild = Callable[["Instance", str, str, Budgets], "Instance"]
"""(parent, program, input, budgets)"""


class Execution:
    """The body of one instance."""

    def __init__(
        self, launch: Launch, sandbox: Sandbox, shared: Shared, launch_child: LaunchChild
    ) -> None:
        self._launch = launch
        self._sandbox = sandbox
        self._shared = shared
        self._models = shared.models
        self._launch_child = launch_child
        self._accounts = launch.accounts
        self._cpu = launch.accounts.cpu
        self._web = ProgramWeb(shared.web, launch.grants.http)
        self._tools = ProgramTools(shared.tools, launch.grants.tools)
        self._final: Usage | None = None

    def run(self, instance: Instance) -> Outcome:
        launch = self._launch
        try:
            loaded = self._sandbox.load(launch.program.digest)
        except PieError as error:
            return Outcome(status="error", code=error.code, message=error.message)
        self._enter_schedulers()
        try:
            return _outcome(self._sandbox.run(loaded, self._guest(instance), launch.input))
        finally:
            self._web.close()
            self._leave_schedulers()

    def _enter_schedulers(self) -> None:
        for model in self._models.by_name.values():
            model.scheduler.add_owner(
                self._launch.id,
                user=self._launch.username,
                root=self._launch.family.root,
                budget=self._accounts.tokens,
                max_kv_pages=self._accounts.kv_pages,
            )

    def _leave_schedulers(self) -> None:
        self._final = self.usage()
        for model in self._models.by_name.values():
            model.scheduler.drop_owner(self._launch.id)

    def _guest(self, instance: Instance) -> HostContext:
        launch = self._launch
        return HostContext(
            mailbox=instance.mailbox,
            cpu=self._cpu,
            memory_bytes=launch.grants.memory_bytes,
            on_line=lambda stream, line: instance.emit(stream, line.encode()),
            on_failure=lambda where, error: _log.error(
                "host_call_failed", instance=launch.id, where=where, exc_info=error
            ),
            instance_id=launch.id,
            program=launch.program.name,
            username=launch.username,
            models=self._models,
            inbox=instance.inbox,
            topics=self._shared.topics,
            storage=ProgramStorage(self._shared.storage, _owner_of(launch)),
            web=self._web,
            tools=self._tools,
            saved=UserContexts(self._shared.saved, launch.username),
            priority_max=launch.grants.priority_max,
            ports=self._ports(instance),
        )

    def _ports(self, instance: Instance) -> HostPorts:
        def launch(program: str, program_input: str, options: LaunchOptions) -> Child:
            budgets = msgspec.convert(options, Budgets, from_attributes=True)
            child = self._launch_child(instance, program, program_input, budgets)
            return Child(child, instance.mailbox.wake)

        return HostPorts(
            emit=instance.emit,
            offer=instance.offer,
            budget=lambda: self._left(instance),
            launch=launch,
        )

    def _left(self, instance: Instance) -> dict[str, float]:
        """What is left under the names of the launch's budgets; absent where there is no limit."""
        self._cpu.charge()
        left = {**self._accounts.left(), "deadline_s": instance.left_s}
        return {name: value for name, value in left.items() if value is not None}

    def usage(self) -> Usage:
        if self._final is not None:
            return self._final
        counted = [
            model.scheduler.owner_usage(self._launch.id) for model in self._models.by_name.values()
        ]
        return Usage(
            prompt_tokens=sum(one.prompt_tokens for one in counted),
            cached_tokens=sum(one.cached_tokens for one in counted),
            generated_tokens=sum(one.generated_tokens for one in counted),
            cpu_s=round(self._cpu.used_s, 6),
        )

    def kv_pages(self) -> int:
        return sum(
            model.scheduler.owner_usage(self._launch.id).kv_pages
            for model in self._models.by_name.values()
        )


def _owner_of(launch: Launch) -> Owner:
    program = launch.program
    return Owner(launch.username, f"{program.namespace}/{program.name}")


def _outcome(end: RunOutcome) -> Outcome:
    match end.kind:
        case "ok":
            return Outcome(status="ok", result=end.text)
        case "err":
            return _program_error(end.text)
        case "trap":
            return Outcome(status="trapped", code="trap", message=end.text)
        case "stopped":
            assert end.reason is not None
            status, code = _STATUS[end.reason]
            return Outcome(status=status, code=code, message=end.text)


class _Described(msgspec.Struct):
    """How the SDKs write an error result; other texts are fine as well."""

    code: str
    message: str


def _program_error(text: str) -> Outcome:
    try:
        error = msgspec.json.decode(text, type=_Described)
    except msgspec.MsgspecError:
        return Outcome(status="error", code="program-error", message=text)
    code = cast(Code, error.code) if error.code in CODES else "program-error"
    return Outcome(status="error", code=code, message=error.message)
