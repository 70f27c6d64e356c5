"""The composition root: builds the parts, starts them, drains and stops them. Nothing else."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_client import paths as folders
from pie_daemon import log, systemd
from pie_daemon.config import PieConfig, backend_configs, complete
from pie_daemon.errors import PieError
from pie_daemon.host.context import Model, Models
from pie_daemon.host.topics import Topics
from pie_daemon.listener.lock import acquire
from pie_daemon.listener.seams import Services
from pie_daemon.listener.server import Server
from pie_daemon.runtime.execution import Shared
from pie_daemon.runtime.outcome import Budgets
from pie_daemon.runtime.outside.loop import Loop
from pie_daemon.runtime.outside.tools import Tools
from pie_daemon.runtime.outside.web import Web
from pie_daemon.runtime.programs import ProgramStore
from pie_daemon.runtime.sandbox import Sandbox
from pie_daemon.runtime.saved import SavedContexts
from pie_daemon.runtime.storage import Storage
from pie_daemon.runtime.supervisor import Supervisor
from pie_daemon.served import Replaced, ServedModel, close_all
from pie_daemon.tasks import Tasks
from pie_daemon.watcher.service import Watcher

if TYPE_CHECKING:
    from pie_daemon.gateway.server import Gateway

_log = structlog.get_logger()
_GARBAGE_THRESHOLD = 20_000
"""New objects between two searches for garbage; the interpreter's own 700 are less than a batch."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a daemon keeps what."""

    state: Path
    runtime: Path

    @classmethod
    def default(cls) -> Paths:
        return cls(folders.state_dir(), folders.runtime_dir())


class Daemon:
    """Everything of one daemon. `start` may be called once; `stop` also after a failed start."""

    def __init__(self, config: PieConfig, paths: Paths | None = None) -> None:
        self.config = complete(config)
        self.paths = paths or Paths.default()
        self._served: dict[str, ServedModel] = {}
        self._server: Server | None = None
        self._gateway: Gateway | None = None
        self._watcher: Watcher | None = None
        self._supervisor: Supervisor | None = None
        self._storage: Storage | None = None
        self._outside = Loop()
        self._tools = Tools(self._outside, lambda: self.config.mcp, lambda: self.config.limits)
        self._lock: Any = None
        self._tasks = Tasks("daemon")
        self._stop_asked = asyncio.Event()

    @property
    def endpoints(self) -> list[str]:
        return self._server.endpoints if self._server else []

    async def start(self) -> None:
        """Ready to serve when it returns: model loaded, folder read once, sockets bound.

        Raises:
            PieError, BackendError: what is wrong and what to do; `stop` frees what was built.
        """
        # 1. The lock first: a second daemon has to fail before it loads a model.
        self._lock = acquire(self.paths.runtime)
        # 2. Models, each with its worker, tokenizer and scheduler.
        systemd.notify("STATUS=loading the model")
        for backend_config in backend_configs(self.config):
            await asyncio.to_thread(self._load, backend_config)
        # 3. Programs and the instances that will run them.
        self._build_runtime()
        # 4. The folder; its programs appear as they are compiled.
        self._start_watcher()
        # 5. Clients; what users had uploaded comes back meanwhile, like what lies in the folder.
        await self._start_listener()
        await self._start_gateway()
        self._tasks.spawn(asyncio.to_thread(self._programs.restore), "restore uploads")
        if (interval_s := self.config.metrics.log_interval_s) is not None:
            self._tasks.spawn(self._log_load(interval_s), "log load")
        systemd.notify("READY=1", "STATUS=serving")
        _log.info("ready", models=list(self._models), folder=self.config.watcher.dir)

    def ask_to_stop(self) -> None:
        self._stop_asked.set()

    async def wait(self) -> None:
        """Returns once a stop was asked for."""
        await self._stop_asked.wait()

    async def stop(self) -> None:
        systemd.notify("STOPPING=1")
        # 1. Nothing new: no launches, no uploads, no requests, no new files.
        await self._refuse_new()
        # 2. Programs may end by themselves for a while; then they are ended.
        if self._supervisor is not None:
            await asyncio.to_thread(self._supervisor.close, self.config.runtime.drain_s)
        # 3. Clients have their last events; goodbye.
        for front in (self._gateway, self._server):
            if front is not None:
                await front.close()
        # 4. Tools and exchanges, which nobody waits for any more.
        await asyncio.to_thread(self._tools.close)
        await asyncio.to_thread(self._outside.close)
        # 5. What programs have stored, then schedulers, then the workers under them.
        if self._storage is not None:
            await asyncio.to_thread(self._storage.close)
        await asyncio.to_thread(close_all, self._served.values())
        # 6. The lock last: from here another daemon may start.
        if self._lock is not None:
            self._lock.release()

    async def _refuse_new(self) -> None:
        for front in (self._gateway, self._server):
            if front is not None:
                front.drain()
        if self._watcher is not None:
            await asyncio.to_thread(self._watcher.stop)
        await self._tasks.close()

    async def _log_load(self, interval_s: float) -> None:
        assert self._supervisor is not None
        while True:
            await asyncio.sleep(interval_s)
            running = [i for i in self._supervisor.instances() if i.state == "running"]
            stats = {name: model.scheduler.stats() for name, model in self._models.items()}
            _log.info("load", instances=len(running), models=msgspec.to_builtins(stats))

    def _load(self, config: BackendConfig) -> None:
        adapters = self.config.models[config.name].adapters
        self._served[config.name] = ServedModel(
            config,
            self.config.scheduler,
            lambda: self.config.limits,
            adapters,
            self.config.backend.replicas,
        )

    async def replace_backend(self, model: str, **changes: Any) -> Replaced:
        """`changes` of its BackendConfig; programs pause and go on, see `ServedModel.replace`."""
        served = self._served[model]
        config = msgspec.structs.replace(served.config, **changes)
        return await asyncio.to_thread(served.replace, config)

    @property
    def _models(self) -> dict[str, Model]:
        return {name: served.model for name, served in self._served.items()}

    def _build_runtime(self) -> None:
        config, state = self.config, self.paths.state
        sandbox = Sandbox(state / "compiled", config.runtime.compile_timeout_s)
        self._programs = ProgramStore(state / "programs", sandbox, config.limits.upload_bytes)
        assert config.model.name is not None  # `complete` has filled it in
        self._storage = Storage(state / "storage.sqlite3", lambda: self.config.limits)
        self._shared = Shared(
            Models(self._models, config.model.name),
            Topics(lambda: self.config.limits),
            self._storage,
            Web(self._outside, lambda: self.config.limits),
            self._tools,
            SavedContexts(state / "contexts", lambda: self.config.limits),
        )
        self._supervisor = Supervisor(
            self._programs, sandbox, self._shared, config.runtime, lambda: self.config.limits
        )

    def _start_watcher(self) -> None:
        limits = self.config.limits
        self._watcher = Watcher(self.config.watcher, self._programs, limits.upload_bytes)
        self._watcher.start()

    async def _start_listener(self) -> None:
        assert self._supervisor is not None
        services = Services(
            supervisor=self._supervisor,
            programs=self._programs,
            make_budgets=_budgets,
            max_program_bytes=lambda: self.config.limits.upload_bytes,
            detail=self._detail,
        )
        server = Server(
            self.config.listener,
            services,
            self.paths.runtime,
            self.paths.state / "uploads",
            self._lock,
            self.config.auth,
        )
        await server.start()
        self._server = server

    async def _start_gateway(self) -> None:
        config = self.config
        if not config.gateway.enabled:
            return
        # Its web server takes a tenth of a second to import, and most daemons have no endpoint.
        from pie_daemon.gateway.server import Gateway, Places

        assert self._supervisor is not None
        places = Places(Path(config.watcher.dir or ""), self.paths.state / "shipped")
        self._gateway = Gateway(
            config.gateway, self._supervisor, self._programs, self._shared.models, places
        )
        await self._gateway.start()

    def _detail(self) -> Mapping[str, Any]:
        """What `status` tells beside the listener's own numbers."""
        return {
            "models": {
                name: {
                    "info": msgspec.to_builtins(model.info),
                    "scheduler": msgspec.to_builtins(model.scheduler.stats()),
                }
                for name, model in self._models.items()
            },
            "watcher": msgspec.to_builtins(self._watcher.stats()) if self._watcher else None,
            "gateway": self._gateway.detail() if self._gateway else None,
        }


def _budgets(given: Any) -> Budgets:
    return msgspec.convert(given, Budgets, from_attributes=True)


async def _serve(config: PieConfig) -> None:
    daemon = Daemon(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, daemon)
    try:
        await daemon.start()
        settle_memory()
        await daemon.wait()
    finally:
        await daemon.stop()


def settle_memory() -> None:
    """What is there by now stays for good, and need not be searched for garbage again; batches and
    launches make thousands of objects at a time, of which hardly any is garbage in a cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, 20, 20)


def _on_signal(daemon: Daemon) -> None:
    """The first signal drains; the second one does not wait for anybody."""
    if daemon._stop_asked.is_set():
        os._exit(130)
    daemon.ask_to_stop()


def run_daemon(config: PieConfig) -> int:
    """Serves until a signal; the exit code."""
    log.configure(config.logging)
    try:
        asyncio.run(_serve(config))
    except (PieError, BackendError) as error:
        _log.error("cannot_serve", reason=str(error))
        return _exit_code(error)
    return 0


def _exit_code(error: PieError | BackendError) -> int:
    """78: as configured it can never start, so nobody should try again; 69: perhaps later."""
    is_configuration = isinstance(error, BackendError) or error.code == "invalid-argument"
    return 78 if is_configuration else 69
