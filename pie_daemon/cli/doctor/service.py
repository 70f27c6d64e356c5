"""Checks of the configuration, the models and the running daemon."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from pie_client.errors import NotRunning, PieError
from pie_client.sync import Client
from pie_daemon import __version__
from pie_daemon.cli.doctor import places, software
from pie_daemon.cli.doctor.check import Result, ok, skip
from pie_daemon.cli.doctor.tools import mcp_servers
from pie_daemon.cli.status import troubles
from pie_daemon.config import ConfigError, PieConfig, load

_TIMEOUT_S = 3.0
_HEALTH_BYTES = 1000


class Setup:
    """The configuration, composed once for all checks that need it."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.config: PieConfig | None = None
        self.error: ConfigError | None = None
        try:
            self.config = load(overrides).config
        except ConfigError as error:
            self.error = error

    def configuration(self) -> Result:
        if self.error is not None:
            return Result(
                "fail", str(self.error), "`pie serve` exits with 78", "correct what is named"
            )
        return ok("the configuration composes")

    def models(self) -> Result:
        from pie_backend.base import BackendError
        from pie_backend.engine.architectures import read_config
        from pie_backend.engine.parallel.division import own_part
        from pie_backend.model_dir import resolve

        if self.config is None:
            return skip("the configuration is broken")
        num_ranks = self.config.backend.tensor_parallel
        fix = "set models.{name}.path or model.path to a Hugging Face directory"
        for name, model in self.config.models.items():
            try:
                found = resolve(model.path)
                if num_ranks > 1:
                    fix = "set backend.tensor_parallel to one of the numbers named"
                    own_part(read_config(found), num_ranks)
            except BackendError as error:
                why = "`pie serve` will not start"
                return Result("fail", f"model {name}: {error}", why, fix.format(name=name))
        ranks = f", each divided among {num_ranks} ranks" if num_ranks > 1 else ""
        paths = ", ".join(f"{name} ({model.path})" for name, model in self.config.models.items())
        return ok(f"models: {paths}{ranks}", tensor_parallel=num_ranks)

    def gpu(self) -> Result:
        if self.config is None:
            return skip("the configuration is broken")
        return software.gpu(self.config.backend.device)

    def watch_folder(self) -> Result:
        if self.config is None or self.config.watcher.dir is None:
            return skip("the configuration is broken")
        return places.watch_folder(Path(self.config.watcher.dir))

    def mcp_servers(self) -> Result:
        return (
            skip("the configuration is broken") if self.config is None else mcp_servers(self.config)
        )

    def gateway(self) -> Result:
        """Whether what answers at the endpoint's port is the endpoint."""
        if self.config is None:
            return skip("the configuration is broken")
        config = self.config.gateway
        if not config.enabled:
            return ok("the HTTP endpoint is off; `gateway=on` turns it on")
        host = f"[{config.host}]" if ":" in config.host else config.host
        return _health(f"http://{host}:{config.port}")


def _health(url: str) -> Result:
    request = urllib.request.Request(f"{url}/health")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_TIMEOUT_S) as answer:
            found = json.loads(answer.read(_HEALTH_BYTES))
    except (urllib.error.HTTPError, http.client.HTTPException, ValueError) as error:
        why = "the endpoint cannot have its port"
        fix = "set gateway.port to another one, or end what uses it"
        return Result("fail", f"something else answers at {url}: {error}", why, fix)
    except OSError:
        return skip(f"nothing answers at {url}; `pie serve` with this configuration starts it")
    return ok(f"{url} answers: {found}")


def daemon() -> Result:
    """Reachable, and of the same version as this command."""
    try:
        with Client.connect(timeout_s=_TIMEOUT_S, name="pie doctor") as client:
            server = client.server
            rejected = [p for p in client.programs() if p.state == "rejected"]
            idle = list(troubles(client.status()))
    except NotRunning:
        if places.lock().data.get("held"):
            return Result(
                "fail",
                "a daemon holds the lock, but nothing answers at its socket",
                "it is starting, stopping, or stuck",
                "wait a moment; then look at its log",
            )
        return skip("no daemon runs; `pie serve` starts one")
    except PieError as error:
        why = "this command and the daemon do not understand each other"
        return Result(
            "fail", f"the daemon answers with: {error.message}", why, "restart the daemon"
        )
    return _judge(server, [f"{p.name}: {p.reason}" for p in rejected], idle)


def _judge(server: str, rejected: list[str], idle: Sequence[str] = ()) -> Result:
    if idle:
        why = "requests wait until it computes again"
        fix = "correct what is named; the daemon keeps trying, and its log has the whole story"
        return Result("fail", f"{server} answers, but {'; '.join(idle)}", why, fix)
    if __version__ not in server:
        summary = f"the daemon is {server}, this command {__version__}"
        return Result("warn", summary, "one of them is older", "restart the daemon")
    if rejected:
        return Result(
            "warn",
            f"{server} answers; rejected programs: {'; '.join(rejected)}",
            "they cannot be run",
            "correct the files, or remove them from the inferlet folder",
        )
    return ok(f"{server} answers")
