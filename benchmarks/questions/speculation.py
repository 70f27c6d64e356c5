"""What guessing from repetitions saves, on the embedded model.

CPU time of one thread, so that other work on the machine disturbs the ratio little.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random

from benchmarks.question import Answer
from benchmarks.rounds import take_turns
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

    def __str__(self) -> str:
        return f"{self.cpu_s:.2f} CPU s"


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


class Speculation:
    name = "speculation"

    def answer(self, *, quick: bool) -> Answer:
        config = BackendConfig(
            name="bench", dtype="float32", placement="inline", kv_pages=512, num_threads=1
        )
        backend = create_backend(config)
        tokenizer = Tokenizer(resolve("crumb"))
        rounds = 1 if quick else ROUNDS
        rows, measured = [], {}
        for label, task in TASKS.items():
            source = Random(0)
            chats = [task(source) for _ in range(NUM_PROMPTS)]
            prompts = [tokenizer.apply_chat_template(chat, None, True) for chat in chats]
            for width in WIDTHS:
                runs = _both(backend, prompts, width, rounds)
                rows.append([label, str(width), *_cells(runs, len(prompts))])
                measured[f"{label}, {width}"] = {
                    way: [run.cpu_s for run in made] for way, made in runs.items()
                }
        backend.close()
        return Answer(
            title=f"Guessing from repetitions: crumb, float32, greedy, 1 thread; best of {rounds}",
            columns=["", "rows", "tokens", "tokens/step of a row", "accepted", "CPU time"],
            rows=rows,
            measured={"cpu_s": measured},
            notes=[
                "The tokens are those without guesses, which is asserted; prefill is not counted."
            ],
        )


def _both(
    backend: Backend, prompts: list[list[int]], width: int, rounds: int
) -> dict[str, list[Run]]:
    runs = take_turns(
        {
            "plain": lambda _: run(backend, prompts, width, None),
            "guessed": lambda _: run(backend, prompts, width, DraftParams()),
        },
        rounds,
        f"speculation, {width} rows",
    )
    assert runs["plain"][0].tokens == runs["guessed"][0].tokens
    return runs


def _cells(runs: dict[str, list[Run]], num_prompts: int) -> list[str]:
    guessed = runs["guessed"][0]
    drawn = sum(map(len, guessed.tokens)) - num_prompts
    plain_s, guessed_s = (min(one.cpu_s for one in made) for made in runs.values())
    return [
        str(drawn),
        f"{drawn / guessed.num_steps:.2f}",
        f"{guessed.acceptance:.0%}",
        f"{guessed_s / plain_s:.2f}x",
    ]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
