"""transformers behind a pipe: one JSON object a line, one answer a line; see `vllm_worker.py`.

Started with {"model": DIR, "dtype": NAME, "how": "generate" or "generate_batch", "num_blocks": N,
"max_batch_tokens": N}. It has no arrivals: `generate` is one padded batch, from start to end.
"""

import json
import os
import sys
import time
from typing import Any

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, GenerationConfig  # noqa: E402

BLOCK_SIZE = 16


class Generate:
    def __init__(self, settings: dict[str, Any]) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            settings["model"], dtype=getattr(torch, settings["dtype"])
        )

    def __call__(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        ids = torch.tensor(prompts)
        made = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
        )
        return [made.shape[1] - ids.shape[1]] * len(prompts)


class GenerateBatch:
    """Continuous batching over paged keys and values."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from transformers import ContinuousBatchingConfig

        self._model: Any = AutoModelForCausalLM.from_pretrained(
            settings["model"],
            dtype=getattr(torch, settings["dtype"]),
            attn_implementation="paged|sdpa",
        )
        self._config = ContinuousBatchingConfig(
            block_size=BLOCK_SIZE,
            num_blocks=settings["num_blocks"],
            max_batch_tokens=settings["max_batch_tokens"],
        )

    def __call__(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        # A negative end token is never drawn, so the length is fixed.
        config: Any = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1
        )
        made = self._model.generate_batch(
            inputs=prompts,
            generation_config=config,
            continuous_batching_config=self._config,
            progress_bar=False,
        )
        return [len(one.generated_tokens) for one in made.values()]


def main() -> None:
    settings = json.loads(sys.argv[1])
    run = Generate(settings) if settings["how"] == "generate" else GenerateBatch(settings)
    print(json.dumps({"ready": True}), file=ANSWERS, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begun = time.perf_counter()
        num_tokens = run(asked["prompts"], asked["new_tokens"])
        answer = {"seconds": time.perf_counter() - begun, "num_tokens": num_tokens}
        print(json.dumps(answer), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main()
