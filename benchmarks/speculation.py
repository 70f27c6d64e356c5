"""What guessing from repetitions saves, on the embedded model: `python -m benchmarks.speculation`.

CPU time of one thread, so that other work on the machine disturbs the ratio little.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from random import Random

from rich.console import Console
from rich.table import Table

from pie_backend.base import Backend
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_backend.model_dir import resolve
from pie_backend.tokenizer import Tokenizer
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.request import GenerateParams
from pie_daemon.scheduler.state import SchedulerState

WIDTHS = (1, 8)
NUM_PROMPTS = 8
ROUNDS = 5
_NOUNS = "apple river stone garden window bread forest paper silver candle bridge spoon".split()
_NAMES = "Anna Ben Clara David Emma Felix Greta Henry".split()
_CITIES = "Berlin Paris Rome Madrid Vienna Oslo Lisbon Prague".split()

Chat = list[dict[str, str]]


def copying(rng: Random) -> Chat:
    return [_user(f"Repeat these words: {' '.join(rng.sample(_NOUNS, 6))}")]


def extraction(rng: Random) -> Chat:
    """The third of three sentences: the shape of the answer is there already."""
    chat: Chat = []
    for _ in range(3):
        name, city, age = rng.choice(_NAMES), rng.choice(_CITIES), rng.randint(20, 80)
        question = f"{name} is {age} years old and lives in {city}."
        chat.append(_user(f"Extract name, age and city as JSON: {question}"))
        answer = f'{{"name": "{name}", "age": {age}, "city": "{city}"}}'
        chat.append({"role": "assistant", "content": answer})
    return chat[:-1]


def story(rng: Random) -> Chat:
    """Nothing to copy: what guessing costs."""
    return [_user(f"Tell me a story about {rng.choice(_NAMES)} and a {rng.choice(_NOUNS)}.")]


TASKS = {"copying words": copying, "extracting JSON": extraction, "a story": story}


@dataclass(frozen=True)
class Run:
    tokens: list[list[int]]
    num_steps: int
    """Of each generation on its own, added up."""
    cpu_s: float
    acceptance: float


def run(backend: Backend, prompts: list[list[int]], width: int, drafts: DraftParams | None) -> Run:
    """All prompts, `width` at a time; prefill is not counted."""
    state = SchedulerState(backend.info, SchedulerConfig(), lambda token: b"", time.monotonic)
    tokens, num_rows, cpu_s = [], 0, 0.0
    for start in range(0, len(prompts), width):
        requests = []
        for prompt in prompts[start : start + width]:
            context = state.create_context("bench")
            state.append(context, prompt)
            params = GenerateParams(max_tokens=64, chunk_tokens=0, drafts=drafts)
            requests.append(state.generate(context, params))
        first = state.decide()
        assert first is not None
        state.complete(backend.execute(first))
        begun = time.process_time()
        while (batch := state.decide()) is not None:
            num_rows += len(batch.rows)
            state.complete(backend.execute(batch))
        cpu_s += time.process_time() - begun
        chunks = [state.take(request) for request in requests]
        tokens += [chunk.tokens for chunk in chunks if chunk is not None]
        state.drop_owner("bench")
    return Run(tokens, num_rows, cpu_s, state.counters.draft_acceptance)


def row(backend: Backend, prompts: list[list[int]], width: int) -> list[str]:
    """Both ways in turn; the cells from `rows` on."""
    plain_s, guessed_s = [], []
    for _ in range(ROUNDS):
        plain = run(backend, prompts, width, None)
        guessed = run(backend, prompts, width, DraftParams())
        assert plain.tokens == guessed.tokens
        plain_s.append(plain.cpu_s)
        guessed_s.append(guessed.cpu_s)
    drawn = sum(map(len, guessed.tokens)) - len(prompts)
    return [
        str(width),
        str(drawn),
        f"{drawn / guessed.num_steps:.2f}",
        f"{guessed.acceptance:.0%}",
        f"{min(guessed_s) / min(plain_s):.2f}x",
    ]


def main() -> None:
    backend = create_backend(
        BackendConfig(
            name="bench", dtype="float32", placement="inline", kv_pages=512, num_threads=1
        )
    )
    tokenizer = Tokenizer(resolve("crumb"))
    shown = Table(title=f"crumb, float32, greedy, 1 thread; best of {ROUNDS}")
    for column in ("", "rows", "tokens", "tokens/step of a row", "accepted", "CPU time"):
        shown.add_column(column)
    for name, task in TASKS.items():
        source = Random(0)
        chats = [task(source) for _ in range(NUM_PROMPTS)]
        prompts = [tokenizer.apply_chat_template(chat, None, True) for chat in chats]
        for width in WIDTHS:
            shown.add_row(name, *row(backend, prompts, width))
    Console(file=sys.stdout, width=100).print(shown)
    backend.close()


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


if __name__ == "__main__":
    main()
