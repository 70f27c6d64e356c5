"""The scheduler under random programs on the dummy backend, which is bit-exact: 10,000 steps."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from support.machine import Machine

TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
