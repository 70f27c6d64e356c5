"""More real programs than the pool has room for: all of them end well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pie_backend.dummy import expected_tokens
from support.rig import Rig

pytestmark = pytest.mark.slow


def test_programs_share_a_pool_that_is_too_small(tmp_path: Path) -> None:
    """Twelve programs of six pages each on eight pages get the tokens that each gets alone."""
    rig = Rig(tmp_path, num_pages=8)
    try:
        rig.install("text-completion")
        fixed = {"max_tokens": 60, "temperature": 0, "ignore_eos": True}
        prompts = [f"{n} programs want more pages than there are" for n in range(12)]
        running = [rig.launch("text-completion", prompt=one, **fixed) for one in prompts]
        outcomes = [rig.outcome(instance) for instance in running]
        assert ["ok"] * 12 == [outcome.status for outcome in outcomes]
        assert [expected_tokens(list(prompt.encode()), 60) for prompt in prompts] == [
            json.loads(outcome.result or "{}")["tokens"] for outcome in outcomes
        ]
    finally:
        rig.close()
