"""Many threads over every kind of host function, with every answer checked."""

from __future__ import annotations

import json
import os
import threading

import pytest

from pie_daemon.host.guest import THREAD_STACK_BYTES
from pie_daemon.host.run import Outcome
from support.guest_host import Sandbox, TestGuest

# `PIE_STRESS_S=60` for the long run.
STRESS_S = float(os.environ.get("PIE_STRESS_S", "3"))
NUM_THREADS = 64


@pytest.mark.slow
@pytest.mark.timeout(STRESS_S * 4 + 120)
def test_no_spurious_error_in_64_threads(sandbox: Sandbox) -> None:
    """Values, errors and resources of 64 programs at once never mix up or fail."""
    outcomes: list[Outcome] = []
    guests = [TestGuest(remember=False) for _ in range(NUM_THREADS)]
    previous = threading.stack_size(THREAD_STACK_BYTES)
    try:
        threads = [
            threading.Thread(
                target=lambda guest=guest: outcomes.append(
                    sandbox.run("stress", STRESS_S, guest=guest)
                )
            )
            for guest in guests
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.stack_size(previous)
    assert [outcome.text for outcome in outcomes if outcome.kind != "ok"] == []
    assert len(outcomes) == NUM_THREADS
    assert all(json.loads(outcome.text) >= 1 for outcome in outcomes)
    assert [guest.failures for guest in guests if guest.failures] == []
    assert {guest.table.num_objects for guest in guests} == {0}
