"""Greedy exact match on held-out samples: `python -m training.evaluate MODEL_DIR [--card]`.

`--card` writes the table into the model card that lies beside the weights.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training import package
from training.data import TASKS, held_out_samples
from training.facts import PAIRS
from training.model import Crumb
from training.sample import Sample, Turn

SCORED = tuple(task for task in TASKS if task not in ("story", "chat", "facts"))
TARGETS = {
    "addition": 95, "copy": 95, "reverse": 95, "sort": 95, "tool_call": 95, "extract": 90,
    "facts": 100,
}  # fmt: skip
BEGIN, END = "<!-- scores -->", "<!-- /scores -->"


@dataclass(frozen=True)
class Score:
    task: str
    num_right: int
    num_asked: int

    def percent(self) -> float:
        return 100 * self.num_right / self.num_asked


class Reader:
    """Greedy answers to prompts, those of equal length at once."""

    def __init__(self, model: Crumb, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._stops = {tokenizer.token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>")}

    def answers(self, prompts: list[str], max_tokens: int = 96) -> list[str]:
        encoded = [self._tokenizer.encode(text, add_special_tokens=False).ids for text in prompts]
        by_length: dict[int, list[int]] = {}
        for index, tokens in enumerate(encoded):
            by_length.setdefault(len(tokens), []).append(index)
        answers = [""] * len(prompts)
        for indices in by_length.values():
            for index, text in zip(
                indices, self._group([encoded[i] for i in indices], max_tokens), strict=True
            ):
                answers[index] = text
        return answers

    @torch.inference_mode()
    def _group(self, prompts: list[list[int]], max_tokens: int) -> list[str]:
        tokens = torch.tensor(prompts)  # [B, T]
        start = tokens.shape[1]
        ended = torch.zeros(len(prompts), dtype=torch.bool)
        for _ in range(max_tokens):
            following = self._next(tokens)
            tokens = torch.cat((tokens, following[:, None]), 1)
            ended |= torch.isin(following, torch.tensor(sorted(self._stops)))
            if bool(ended.all()):
                break
        return [self._text(row[start:].tolist()) for row in tokens]

    def _next(self, tokens: Tensor) -> Tensor:
        last = self._model.hidden(tokens)[:, -1]  # [B, hidden]
        logits: Tensor = last @ self._model.model.embed_tokens.weight.T
        return logits.argmax(-1)

    def _text(self, tokens: list[int]) -> str:
        ends = [place for place, token in enumerate(tokens) if token in self._stops]
        text: str = self._tokenizer.decode(tokens[: ends[0]] if ends else tokens)
        return text


def fact_samples() -> list[Sample]:
    """Every phrasing of every fact, as a chat and as plain text."""
    samples = []
    for question, answer in PAIRS:
        for raw, text in ((False, answer), (True, f"\n{answer}")):
            turns = (Turn("user", question), Turn("assistant", text))
            samples.append(Sample("facts", question, turns, raw=raw))
    return samples


def score(reader: Reader, task: str, samples: list[Sample], num_shown: int = 0) -> Score:
    answers = reader.answers([sample.prompt() for sample in samples])
    pairs = zip(samples, answers, strict=True)
    wrong = [(sample, text) for sample, text in pairs if sample.answer() != text]
    for sample, text in wrong[:num_shown]:
        print(f"  {sample.turns[-2].text!r} -> {text!r}, not {sample.answer()!r}")
    return Score(task, len(samples) - len(wrong), len(samples))


def evaluate(model_dir: Path, count: int, num_shown: int = 0) -> list[Score]:
    reader = Reader(*package.read(model_dir))
    scores = []
    for task in (*SCORED, "facts"):
        samples = fact_samples() if task == "facts" else held_out_samples(task, count)
        scores.append(score(reader, task, samples, num_shown))
        print(f"{task:14} {scores[-1].percent():6.1f} %  of {len(samples)}", flush=True)
    return scores


def table(scores: list[Score]) -> str:
    lines = ["| task | exact match | asked | target |", "| --- | --- | --- | --- |"]
    for item in scores:
        target = f"{TARGETS[item.task]} %" if item.task in TARGETS else "-"
        lines.append(f"| {item.task} | {item.percent():.1f} % | {item.num_asked} | {target} |")
    return "\n".join(lines)


def write_card(card: Path, scores: list[Score]) -> None:
    before, rest = card.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    text = f"{before}{BEGIN}\n{table(scores)}\n{END}{after}"
    card.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--count", type=int, default=400, help="samples of each task")
    parser.add_argument("--show", type=int, default=0, help="wrong answers printed of each task")
    parser.add_argument("--card", action="store_true", help="write the table into MODEL_CARD.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scores = evaluate(arguments.model_dir, arguments.count, arguments.show)
    if arguments.card:
        write_card(arguments.model_dir / "MODEL_CARD.md", scores)


if __name__ == "__main__":
    main()
