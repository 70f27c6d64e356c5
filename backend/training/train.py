"""Train crumb: `python -m training.train OUT_DIR --tokenizer DIR --minutes 65`.

The learning rate follows the clock, so a run on a busy machine ends in time and well annealed.
A usable model lies in OUT_DIR after the first checkpoint; `--resume` goes on where the last ended.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from training import package
from training.batches import IGNORED, Encoder, MicroBatch, steps
from training.data import training_samples
from training.model import Crumb, Shape

AVERAGE_DECAY = 0.99
WARMUP_STEPS = 40
STATE_FILE = "training_state.pt"


@dataclass(frozen=True)
class Plan:
    minutes: float
    samples_per_step: int = 160
    max_tokens: int = 6000  # of one micro batch, padding included
    matrix_rate: float = 0.02
    other_rate: float = 3e-3
    flat_share: float = 0.45  # of the time at full rate, before it falls linearly
    checkpoint_s: float = 240.0
    seed: int = 0


class Optimizers:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""

    def __init__(self, model: Crumb, plan: Plan) -> None:
        matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        muon = torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.01)
        adam = torch.optim.AdamW(others, lr=plan.other_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.all: tuple[tuple[torch.optim.Optimizer, float], ...] = (
            (muon, plan.matrix_rate),
            (adam, plan.other_rate),
        )

    def step(self, rate: float) -> None:
        for optimizer, full in self.all:
            for group in optimizer.param_groups:
                group["lr"] = full * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer, _ in self.all]

    def load(self, states: list[dict[str, Any]]) -> None:
        for (optimizer, _), state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)


def rate_at(progress: float, step: int, flat_share: float) -> float:
    """Share of the full learning rate."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    falling = min(1.0, (1.0 - progress) / (1.0 - flat_share))
    return max(0.01, warm * falling)


def loss_sum(model: Crumb, batch: MicroBatch) -> Tensor:
    """Weighted sum over the learnt tokens; only these meet the output matrix."""
    with torch.autocast("cpu", torch.bfloat16):
        states = model.hidden(batch.tokens)  # [B, T, hidden]
        places = batch.targets != IGNORED
        logits = F.linear(states[places], model.model.embed_tokens.weight)  # [N, vocab]
    losses = F.cross_entropy(logits.float(), batch.targets[places], reduction="none")
    weights = batch.weights[:, None].expand_as(places)[places]
    return (losses * weights).sum()


def learn(model: Crumb, batches: list[MicroBatch]) -> tuple[float, int]:
    """Gradients of one step; the mean loss and the number of tokens read."""
    counts = ((batch.targets != IGNORED).sum(1).float() * batch.weights for batch in batches)
    total = sum(float(count.sum()) for count in counts)
    loss = 0.0
    for batch in batches:
        part = loss_sum(model, batch) / total
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    return loss, sum(batch.tokens.numel() for batch in batches)


class Run:
    """Where a run stands: step, seconds spent, weights, their average, the optimizers."""

    def __init__(
        self, plan: Plan, out_dir: Path, tokenizer_dir: Path, shape: Shape | None = None
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.out_dir, self.tokenizer_dir = plan, out_dir, tokenizer_dir
        self.tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
        self.shape = shape or Shape(vocab_size=self.tokenizer.get_vocab_size())
        self.model = Crumb(self.shape)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizers = Optimizers(self.model, plan)
        self.step, self.spent_s = 0, 0.0

    def progress(self) -> float:
        return min(1.0, self.spent_s / (self.plan.minutes * 60))

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(rate_at(self.progress(), self.step, self.plan.flat_share))
        decay = min(AVERAGE_DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, weight in self.model.state_dict().items():
                self.average[name].lerp_(weight, 1 - decay)
        self.step += 1

    def save(self) -> None:
        package.write(self.average, self.shape, self.tokenizer_dir, self.out_dir)
        state = {
            "step": self.step,
            "spent_s": self.spent_s,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": self.optimizers.state(),
            "plan": asdict(self.plan),
        }
        partial = self.out_dir / (STATE_FILE + ".partial")
        torch.save(state, partial)
        os.replace(partial, self.out_dir / STATE_FILE)

    def resume(self) -> None:
        state = torch.load(self.out_dir / STATE_FILE, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizers.load(state["optimizers"])
        self.step, self.spent_s = state["step"], state["spent_s"]


def train(run: Run) -> None:
    plan = run.plan
    encoder = Encoder(run.tokenizer)
    samples = training_samples(plan.seed + 1000 * run.step)
    saved_s, printed_s, num_tokens = run.spent_s, run.spent_s, 0
    began = time.monotonic() - run.spent_s
    for batches in steps(samples, encoder, plan.samples_per_step, plan.max_tokens):
        loss, read = learn(run.model, batches)
        run.update()
        num_tokens += read
        run.spent_s = time.monotonic() - began
        if run.step % 20 == 0:
            report(run, loss, num_tokens / (run.spent_s - printed_s))
            printed_s, num_tokens = run.spent_s, 0
        finished = run.progress() >= 1.0
        if finished or run.spent_s - saved_s > plan.checkpoint_s:
            run.save()
            saved_s = run.spent_s
        if finished:
            return


def report(run: Run, loss: float, tokens_per_s: float) -> None:
    left_s = run.plan.minutes * 60 - run.spent_s
    print(
        f"step {run.step}  loss {loss:.4f}  {tokens_per_s:.0f} tokens/s  "
        f"{run.spent_s / 60:.1f} min, {left_s / 60:.1f} left",
        flush=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="folder of training.tokenizer"
    )
    parser.add_argument("--minutes", type=float, default=65.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    run = Run(Plan(arguments.minutes, seed=arguments.seed), arguments.out_dir, arguments.tokenizer)
    if arguments.resume:
        run.resume()
    parameters = sum(p.numel() for p in run.model.parameters())
    print(f"{parameters} parameters, {arguments.minutes} minutes", flush=True)
    train(run)


if __name__ == "__main__":
    main()
