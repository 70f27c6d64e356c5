"""vLLM's offline engine behind a pipe: one JSON object a line, one answer a line.

Runs in vLLM's own environment, so it imports nothing of Pie. `python vllm_worker.py '{"model": DIR,
"dtype": NAME, "max_model_len": N, "max_num_seqs": N, "max_num_batched_tokens": N}'`; then a `Load`
of benchmarks/load.py a line, and for each a `Timing`.
"""

import json
import os
import sys
import time
from typing import Any

# The answers go out where stdout led; whatever vLLM prints goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

# Not installed where the types are checked.
from vllm import LLM, SamplingParams  # type: ignore[import-not-found] # noqa: E402
from vllm.sampling_params import (  # type: ignore[import-not-found] # noqa: E402
    RequestOutputKind,
)


def load(settings: dict[str, Any]) -> Any:
    return LLM(
        settings["model"],
        dtype=settings["dtype"],
        skip_tokenizer_init=True,
        enable_prefix_caching=True,
        max_model_len=settings["max_model_len"],
        max_num_seqs=settings["max_num_seqs"],
        max_num_batched_tokens=settings["max_num_batched_tokens"],
        disable_log_stats=True,
    )


class Turn:
    """One load on its way through the engine."""

    def __init__(self, engine: Any, asked: dict[str, Any]) -> None:
        self._engine = engine
        self._prompts = asked["prompts"]
        self._arrivals = asked.get("arrivals_s") or [0.0] * len(self._prompts)
        self._params = SamplingParams(
            temperature=0,
            max_tokens=asked["new_tokens"],
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._num_added = 0
        self._num_tokens = [0] * len(self._prompts)
        self._first_s = [0.0] * len(self._prompts)
        self._last_s = [0.0] * len(self._prompts)
        self._begun = time.perf_counter()

    def run(self) -> dict[str, Any]:
        """Adds each request when its time has come, and steps the engine while it has any."""
        while self._num_added < len(self._prompts) or self._engine.has_unfinished_requests():
            self._admit()
            if self._engine.has_unfinished_requests():
                for output in self._engine.step():
                    self._note(output)
            else:
                time.sleep(max(0.0, self._arrivals[self._num_added] - self._now()))
        return {
            "seconds": self._now(),
            "num_tokens": self._num_tokens,
            "first_s": self._first_s,
            "last_s": self._last_s,
        }

    def _now(self) -> float:
        return time.perf_counter() - self._begun

    def _admit(self) -> None:
        due = [at_s for at_s in self._arrivals if at_s <= self._now()]
        for number in range(self._num_added, len(due)):
            prompt = {"prompt_token_ids": self._prompts[number]}
            self._engine.add_request(str(number), prompt, self._params)
        self._num_added = len(due)

    def _note(self, output: Any) -> None:
        # The engine adds a suffix of its own to the ids that it was given.
        number = int(output.request_id.split("-")[0])
        drawn = output.outputs[0].token_ids
        if drawn:
            self._num_tokens[number] += len(drawn)
            self._first_s[number] = self._first_s[number] or self._now()
            self._last_s[number] = self._now()


def main() -> None:
    engine = load(json.loads(sys.argv[1])).llm_engine
    print(json.dumps({"ready": True}), file=ANSWERS, flush=True)
    for line in sys.stdin:
        answer = Turn(engine, json.loads(line)).run()
        print(json.dumps(answer), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main()
