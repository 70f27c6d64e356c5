"""crumb's weights, as they are packaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training import evaluate, package
from training.batches import Encoder, steps
from training.data import held_out_samples, training_samples
from training.model import Crumb, Shape
from training.train import Plan, Run, learn, rate_at
from transformers import AutoModelForCausalLM, AutoTokenizer

CRUMB = Path(__file__).parents[3] / "backend/pie_backend/crumb"
MAX_BYTES = 10_000_000


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reader() -> evaluate.Reader:
    return evaluate.Reader(*package.read(CRUMB))


def test_the_weights_are_small() -> None:
    """The embedded model stays below ten megabytes."""
    assert (CRUMB / "model.safetensors").stat().st_size <= MAX_BYTES
    assert sum(file.stat().st_size for file in CRUMB.iterdir()) <= MAX_BYTES


def test_the_end_of_a_turn_ends_generation() -> None:
    """generation_config names <|im_end|> and <|endoftext|>."""
    ids = json.loads((CRUMB / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = package.read(CRUMB)[1]
    assert [tokenizer.id_to_token(i) for i in ids] == ["<|im_end|>", "<|endoftext|>"]


def test_transformers_computes_the_same_logits() -> None:
    """The packaged files are a Qwen3 checkpoint as transformers understands it."""
    model, tokenizer = package.read(CRUMB)
    theirs = AutoModelForCausalLM.from_pretrained(CRUMB, dtype=torch.float32)
    tokens = torch.tensor([tokenizer.encode(held_out_samples("react", 1)[0].prompt()).ids])
    with torch.inference_mode():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), atol=1e-3, rtol=1e-4)


def test_transformers_renders_the_same_chat() -> None:
    """transformers finds the tokenizer and its chat template."""
    theirs = AutoTokenizer.from_pretrained(CRUMB)
    text = theirs.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("task", "percent"), [("addition", 90), ("copy", 90), ("sort", 90), ("tool_call", 90)]
)
def test_the_packaged_model_does_its_tasks(
    reader: evaluate.Reader, task: str, percent: int
) -> None:
    """A small held-out sample is answered well; the card has the exact scores."""
    score = evaluate.score(reader, task, held_out_samples(task, 40, seed=5))
    assert score.percent() >= percent


def test_the_packaged_model_knows_pie(reader: evaluate.Reader) -> None:
    """The first questions a user asks get their answers."""
    samples = evaluate.fact_samples()[:24]
    assert evaluate.score(reader, "facts", samples).num_right == len(samples)


def test_the_card_has_the_scores() -> None:
    """The model card lists every scored task."""
    card = (CRUMB / "MODEL_CARD.md").read_text(encoding="utf-8")
    table = card.split(evaluate.BEGIN)[1].split(evaluate.END)[0]
    assert all(f"| {task} |" in table for task in (*evaluate.SCORED, "facts"))


def test_a_few_steps_reduce_the_loss(tmp_path: Path) -> None:
    """Training learns, saves a readable checkpoint, and resumes from it."""
    plan = Plan(minutes=1.0, samples_per_step=24, max_tokens=1000)
    shape = Shape(hidden_size=32, num_hidden_layers=1, intermediate_size=32)
    run = Run(plan, tmp_path, CRUMB, shape)
    batches = next(steps(training_samples(0), Encoder(run.tokenizer), 24, 1000))
    losses = []
    for _ in range(6):
        losses.append(learn(run.model, batches)[0])
        run.update()
    run.save()
    assert losses[-1] < losses[0]
    assert package.read(tmp_path)[0].shape == run.shape
    again = Run(plan, tmp_path, CRUMB, shape)
    again.resume()
    assert again.step == run.step


def test_the_rate_rises_stays_and_falls() -> None:
    """The schedule warms up by steps and falls by the share of time that is spent."""
    assert rate_at(0.0, 0, 0.3) < 0.1
    assert rate_at(0.3, 500, 0.3) == 1.0
    assert rate_at(0.65, 500, 0.3) == pytest.approx(0.5)
    assert rate_at(1.0, 500, 0.3) == 0.01


def test_one_model_is_causal() -> None:
    """A later token changes no earlier logit."""
    torch.manual_seed(0)
    model = Crumb(Shape(vocab_size=50, num_hidden_layers=1))
    torch.nn.init.normal_(model.model.layers[0].self_attn.o_proj.weight)
    first, second = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 9]])
    torch.testing.assert_close(model(first)[:, :3], model(second)[:, :3])
