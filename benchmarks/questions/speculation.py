"""What guessing from repetitions saves, on the embedded model, and what it costs in vain."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from random import Random

from benchmarks import pictures
from benchmarks.chats import CHATS
from benchmarks.numbers import ratio, rows
from benchmarks.question import Answer
from benchmarks.rounds import take_turns
from pie_backend.base import Backend
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_backend.model_dir import resolve
from pie_backend.tokenizer import Tokenizer
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.state import SchedulerState

WIDTHS = (1, 8)
MAX_TOKENS = 64
PLAIN, GUESSED = "without guesses", "guessed"
WAYS = {PLAIN: None, GUESSED: DraftParams()}


@dataclass(frozen=True, slots=True)
class Run:
    """All prompts of one task; prefill is not counted."""

    tokens: list[list[int]]
    num_steps: int
    """Of each generation on its own, added up."""
    cpu_s: float
    acceptance: float

    @property
    def tokens_per_step(self) -> float:
        return (sum(map(len, self.tokens)) - len(self.tokens)) / self.num_steps

    def __str__(self) -> str:
        return f"{self.cpu_s:.2f} CPU s"


Runs = dict[tuple[str, int], dict[str, list[Run]]]
"""By task and width, then by way."""


class Speculation:
    name = "speculation"

    def answer(self, *, quick: bool) -> Answer:
        config = BackendConfig(
            name="bench", dtype="float32", placement="inline", kv_pages=512, num_threads=1
        )
        rounds, num_prompts = (1, 3) if quick else (5, 8)
        with closing(create_backend(config)) as backend:
            runs: Runs = {
                (task, width): _both(backend, _prompts(task, num_prompts), width, rounds)
                for task in CHATS
                for width in WIDTHS
            }
        return _answer(runs)


def _both(
    backend: Backend, asked: list[list[int]], width: int, rounds: int
) -> dict[str, list[Run]]:
    turns = {
        way: lambda _, drafts=drafts: _run(backend, asked, width, drafts)
        for way, drafts in WAYS.items()
    }
    runs = take_turns(turns, rounds, f"speculation, {rows(width)}")
    assert runs[PLAIN][0].tokens == runs[GUESSED][0].tokens
    return runs


def _prompts(task: str, num_prompts: int) -> list[list[int]]:
    source, tokenizer = Random(0), Tokenizer(resolve("crumb"))
    chats = [CHATS[task](source) for _ in range(num_prompts)]
    return [tokenizer.apply_chat_template(chat, None, True) for chat in chats]


def _run(backend: Backend, asked: list[list[int]], width: int, drafts: DraftParams | None) -> Run:
    """`width` prompts at a time, through the scheduler."""
    state = SchedulerState(backend.info, SchedulerConfig(), lambda token: b"", time.monotonic)
    tokens: list[list[int]] = []
    num_steps, cpu_s = 0, 0.0
    for start in range(0, len(asked), width):
        requests = [_start(state, prompt, drafts) for prompt in asked[start : start + width]]
        _step(state, backend)
        begun = time.process_time()
        while num_rows := _step(state, backend):
            num_steps += num_rows
        cpu_s += time.process_time() - begun
        chunks = [state.take(request) for request in requests]
        tokens += [chunk.tokens for chunk in chunks if chunk is not None]
        state.drop_owner("bench")
    return Run(tokens, num_steps, cpu_s, state.counters.draft_acceptance)


def _start(state: SchedulerState, prompt: list[int], drafts: DraftParams | None) -> int:
    context = state.create_context("bench")
    state.append(context, prompt)
    return state.generate(
        context, GenerateParams(max_tokens=MAX_TOKENS, chunk_tokens=0, drafts=drafts)
    )


def _step(state: SchedulerState, backend: Backend) -> int:
    """The rows of one batch; 0 when there is nothing to compute."""
    batch = state.decide()
    if batch is None:
        return 0
    state.complete(backend.execute(batch))
    return len(batch.rows)


def _answer(runs: Runs) -> Answer:
    panels = {
        rows(width): {PLAIN: 1.0, **{f"Pie, {task}": _gain(runs[task, width]) for task in CHATS}}
        for width in WIDTHS
    }
    return Answer(
        title="How much faster guessing from repetitions is: crumb, float32, greedy, CPU time of "
        "1 thread (the best run of each)",
        columns=["", *panels, "tokens a step of a row", "guesses that came true", "tokens"],
        rows=[_row(task, panels, runs[task, 1][GUESSED][0]) for task in CHATS],
        measured={
            f"{task}, {rows(width)}": {
                way: [_sample(run) for run in made] for way, made in of.items()
            }
            for (task, width), of in runs.items()
        },
        notes=[
            "The tokens are those without guesses, which is asserted. CPU time, so that other work "
            "on the machine disturbs the ratio little.",
            "A story repeats nothing: what it loses is why guessing is off unless asked for.",
        ],
        draw=lambda figure: pictures.bars(figure, panels, "times as fast"),
    )


def _row(task: str, panels: dict[str, dict[str, float]], guessed: Run) -> list[str]:
    gains = [ratio(panel[f"Pie, {task}"]) for panel in panels.values()]
    num_tokens = sum(map(len, guessed.tokens))
    return [
        task,
        *gains,
        f"{guessed.tokens_per_step:.2f}",
        f"{guessed.acceptance:.0%}",
        str(num_tokens),
    ]


def _gain(runs: dict[str, list[Run]]) -> float:
    plain_s, guessed_s = (min(run.cpu_s for run in runs[way]) for way in WAYS)
    return plain_s / guessed_s


def _sample(run: Run) -> dict[str, object]:
    return {name: value for name, value in asdict(run).items() if name != "tokens"}
