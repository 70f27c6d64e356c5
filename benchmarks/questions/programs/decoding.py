"""Ways to draw fewer tokens, or to compute fewer: the client's side."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from benchmarks.questions.programs.workload import Served, Words, Work

MAX_DRAFT = 8
SPECULATION = {
    "method": "ngram",
    "num_speculative_tokens": MAX_DRAFT,
    "prompt_lookup_max": 4,
    "prompt_lookup_min": 2,
}
"""vLLM's own, as Pie's is by default."""


class PrefixTree:
    name = "prefix-tree"
    label = "Prefix tree, 16 leaves"

    def work(self, words: Words) -> Work:
        return {
            "root": words.new(512),
            "branches": [
                {"middle": words.new(64), "leaves": [words.new(16) for _ in range(4)]}
                for _ in range(4)
            ],
            "new_tokens": 16,
        }

    async def client(self, served: Served, work: Work) -> int:
        """All at once: vLLM finds also what another request of the same moment computes."""
        drawn = await asyncio.gather(
            *(
                served.complete(work["root"] + branch["middle"] + leaf, work["new_tokens"])
                for branch in work["branches"]
                for leaf in branch["leaves"]
            )
        )
        return sum(map(len, drawn))


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "category": {"enum": ["billing", "delivery", "quality", "returns"]},
        "priority": {"enum": ["low", "normal", "high", "urgent"]},
        "sentiment": {"enum": ["angry", "neutral", "pleased"]},
        "language": {"enum": ["english", "german", "french", "spanish"]},
        "department": {"enum": ["sales", "support", "logistics"]},
        "resolution": {"enum": ["refund", "replacement", "apology", "none"]},
    },
    "required": ["category", "priority", "sentiment", "language", "department", "resolution"],
    "additionalProperties": False,
}


class JsonSchema:
    """What the schema leaves no choice about is written; only the values are drawn."""

    name = "json"
    label = "JSON Schema, 6 values"

    def work(self, words: Words) -> Work:
        return {"prompt": words.shared(192) + words.new(64), "schema": SCHEMA}

    async def client(self, served: Served, work: Work) -> int:
        """A request for each value, which is fewer steps than one for all that is written."""
        said, written, num_tokens = work["prompt"], "{", 0
        for name, value in work["schema"]["properties"].items():
            said = said + served.encode(f'{written}{json.dumps(name)}:"')
            # Without the stop string vLLM would draw an end token, too.
            drawn = await served.complete(
                said,
                32,
                structured_outputs={"choice": [f'{option}"' for option in value["enum"]]},
                stop=['"'],
                include_stop_str_in_output=True,
                ignore_eos=False,
            )
            said, written, num_tokens = said + drawn, ",", num_tokens + len(drawn)
        return num_tokens


class Ngram:
    """The answer repeats what the prompt ends with, but for every twelfth token."""

    name = "ngram"
    label = "n-gram speculation, 128 tokens"

    def work(self, words: Words) -> Work:
        start, answer = words.answer(128)
        draft = [
            word if place % 12 else other
            for place, (word, other) in enumerate(zip(answer, words.new(128), strict=True))
        ]
        return {
            "prompt": [*words.new(127), *draft, start],
            "new_tokens": 128,
            "max_draft": MAX_DRAFT,
        }

    async def client(self, served: Served, work: Work) -> int:
        return len(await served.complete(work["prompt"], work["new_tokens"]))
