"""The worker of a real daemon is killed while programs run: they pause and go on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from support.daemon import DaemonProcess, scheduler_of
from support.waiting import until

pytestmark = pytest.mark.slow
PROMPTS = [f"Once upon a time there were {number} " for number in range(8)]


def worker_of(daemon: DaemonProcess) -> psutil.Process:
    (worker,) = [
        child
        for child in psutil.Process(daemon.pid).children()
        if "pie_backend.worker" in child.cmdline()
    ]
    return worker


def complete(daemon: DaemonProcess, number: int) -> Any:
    """Greedy and sampled in turn."""
    options = {"temperature": 0.8, "seed": number} if number % 2 else {"temperature": 0}
    with daemon.connect() as client:
        asked = {"prompt": PROMPTS[number], "max_tokens": 300, "ignore_eos": True, **options}
        return client.launch("text-completion", asked).result()


def deaths(daemon: DaemonProcess) -> Any:
    with daemon.connect() as client:
        return scheduler_of(client)["worker"]


def wait_for_deaths(daemon: DaemonProcess, number: int) -> None:
    until(lambda: deaths(daemon)["deaths"] == number)


def test_programs_pause_and_go_on(clean: DaemonProcess) -> None:
    """Twice in one run; what they answer is what they answer undisturbed."""
    calm = [complete(clean, number) for number in range(len(PROMPTS))]
    before = deaths(clean)["deaths"]
    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        running = [threads.submit(complete, clean, number) for number in range(len(PROMPTS))]
        for number in (1, 2):
            with clean.connect() as client:
                until(lambda: client.status().instances > 0)
                until(lambda: int(str(scheduler_of(client)["running_requests"])) > 0)
            worker_of(clean).kill()
            wait_for_deaths(clean, before + number)
            until(lambda: deaths(clean)["state"] == "serving")
        assert calm == [one.result() for one in running]
    assert "SIGKILL" in deaths(clean)["last_cause"]
