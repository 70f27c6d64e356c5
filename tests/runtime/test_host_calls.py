"""Every host function, from many threads at once, and failing at every single call."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pie_daemon.errors import PieError
from pie_daemon.host.abi import Interface
from pie_daemon.host.guest import current
from pie_daemon.runtime import sandbox
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.instance import Instance
from pie_daemon.runtime.outside.config import McpConfig, McpServer
from support import mcp_server
from support.rig import Rig, events
from support.waiting import until
from support.web_server import web_server

THREADS = 64
STRESS_S = float(os.environ.get("PIE_STRESS_S", "5"))


def feed(instance: Instance) -> Instance:
    """What the program that calls every function expects of its client."""
    instance.deliver("ping")
    instance.deliver_blob("data", b"\x00\xff")
    instance.close_input()
    return instance


@pytest.mark.slow
def test_sixty_four_threads_over_every_function_see_no_spurious_error(tmp_path: Path) -> None:
    """Each program checks every answer it gets; all of them report the same. PIE_STRESS_S=60
    goes on for a minute."""
    rig = Rig(tmp_path, num_pages=4096)
    rig.install("guest-sdk")
    rig.install("echo")
    wanted = json.loads(rig.outcome(feed(rig.launch("guest-sdk"))).result or "null")
    end = time.monotonic() + STRESS_S
    wrong: list[Any] = []

    def work() -> None:
        while time.monotonic() < end:
            outcome = rig.outcome(feed(rig.launch("guest-sdk")))
            if outcome.result is None or json.loads(outcome.result) != wanted:
                wrong.append(outcome)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong
    rig.close()


class Countdown:
    """Raises at the k-th host call of one program; `None` never does."""

    def __init__(self) -> None:
        self.left: int | None = None
        self._guest: object = None

    def start(self, calls: int) -> None:
        """Counts those of the program that calls first, and not those of its children."""
        self.left = calls
        self._guest = None

    def wrap(self, interface: Interface) -> Interface:
        functions = {name: self._counting(f) for name, f in interface.functions.items()}
        return replace(interface, functions=functions)

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._guest = self._guest or current()
            if self.left is not None and self._guest is current():
                self.left -= 1
                if self.left < 0:
                    raise RuntimeError("planted")
            return function(*arguments)

        return call


@pytest.fixture
def countdown(monkeypatch: pytest.MonkeyPatch) -> Countdown:
    countdown = Countdown()
    wrapped = tuple(countdown.wrap(interface) for interface in sandbox._INTERFACES)
    monkeypatch.setattr(sandbox, "_INTERFACES", wrapped)
    return countdown


@pytest.mark.slow
def test_a_trap_at_any_host_call_frees_everything(tmp_path: Path, countdown: Countdown) -> None:
    """At the first call, at the second, and so on until the program gets through: afterwards the
    page accounting is clean, and no page, context or owner is left."""
    rig = Rig(tmp_path)
    rig.install("guest-sdk")
    rig.install("echo")
    for calls in itertools.count():
        countdown.start(calls)
        instance = rig.launch("guest-sdk")
        with suppress(PieError):  # it may have ended at its first calls, and takes no message then
            feed(instance)
        outcome = rig.outcome(instance)
        rig.check_empty()
        assert 0 == rig.topics.num_subscriptions, calls  # what was pushed waits for a puller
        if outcome.status == "ok":
            break
        assert ("trapped", "trap") == (outcome.status, outcome.code), (calls, outcome)

    assert calls > 100
    rig.close()


@pytest.mark.slow
def test_a_trap_at_any_call_outside_frees_everything(tmp_path: Path, countdown: Countdown) -> None:
    """The same for what goes on in the world outside: no request and no call of a tool is left."""
    server = McpServer(command=sys.executable, args=(str(mcp_server.PATH),))
    rig = Rig(tmp_path, mcp=McpConfig(servers={"test": server}))
    rig.install("guest-outside")
    with web_server() as web:
        rig.limits = LimitsConfig(http_hosts=(f"127.0.0.1:{web.port}",), tools=("test",))
        for calls in itertools.count():
            countdown.start(calls)
            outcome = rig.outcome(rig.launch("guest-outside", web=web.url("")))
            rig.check_empty()
            if outcome.status == "ok":
                break
            assert ("trapped", "trap") == (outcome.status, outcome.code), (calls, outcome)
        until(lambda: not work_outside(rig))

    assert calls > 40
    rig.close()


def work_outside(rig: Rig) -> list[str]:
    """What programs have begun there and not ended."""
    loop = rig.outside._loop
    names = [str(task.get_coro()) for task in asyncio.all_tasks(loop)] if loop else []
    return [name for name in names if "_guarded" in name]


def test_a_defect_of_the_host_ends_only_the_program_that_met_it(
    tmp_path: Path, countdown: Countdown
) -> None:
    """The next program runs, and the first one's outcome says what failed."""
    rig = Rig(tmp_path)
    rig.install("behave")
    countdown.start(3)
    instance = rig.launch("behave", do="log")
    outcome = rig.outcome(instance)
    countdown.left = None

    assert "planted" in (outcome.message or "")
    assert "outcome" == events(instance)[-1].kind
    rig.run("behave", do="log")
    rig.close()
