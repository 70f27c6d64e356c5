"""Constrained greedy generation against transformers with a logits processor of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import lark
import pytest
import torch
import transformers
from llguidance import LLMatcher, LLTokenizer

from pie_backend.batch import Adjustment, Sampling
from pie_backend.model_dir import resolve
from pie_daemon.grammar.source import Source, choice
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.params import GenerateParams
from support.guided import Guided, Written

pytestmark = pytest.mark.slow
MAX_TOKENS = 48
SCHEMA: Any = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
REGEX = r"(yes|no), [a-z]{2,6} is [0-9]{1,3}"
LARK = 'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[1-9][0-9]{0,2}/'
OPTIONS = ["red", "green", "dark blue"]
SOURCES = {
    "json-schema": Source("json-schema", json.dumps(SCHEMA)),
    "regex": Source("regex", REGEX),
    "lark": Source("lark", LARK),
    "choice": choice(OPTIONS),
}
PROMPTS = ["Extract the name and the age as JSON: Ada is 36 years old.", "What is 3 + 4?"]


class Follow(transformers.LogitsProcessor):  # type: ignore[misc]
    """Forbids what llguidance does not allow, by its own reading of tokenizer.json."""

    def __init__(self, matcher: LLMatcher, num_prompt: int) -> None:
        self._matcher = matcher
        self._num_seen = num_prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for token in input_ids[0, self._num_seen :].tolist():
            assert self._matcher.consume_token(token)
        self._num_seen = input_ids.shape[1]
        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        allowed = (packed.unsqueeze(1) >> torch.arange(8) & 1).flatten()[: scores.shape[1]] > 0
        return scores.masked_fill(~allowed, -torch.inf)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of crumb's shape and vocabulary with weights wide enough to say something."""
    path = tmp_path_factory.mktemp("random")
    crumb = resolve("crumb").path
    config = transformers.AutoConfig.from_pretrained(crumb)
    config.dtype = "float32"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3 if "norm" in name else 0.08)
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (path / name).write_bytes((crumb / name).read_bytes())
    return path


@pytest.fixture(scope="module", params=["crumb", "random"])
def guided(request: pytest.FixtureRequest, random_weights: Path) -> Iterator[Guided]:
    guided = Guided("crumb" if request.param == "crumb" else random_weights, dtype="float32")
    yield guided
    guided.close()


@pytest.mark.parametrize("kind", SOURCES)
def test_greedy_tokens_are_those_of_transformers(guided: Guided, kind: str) -> None:
    """The same masks over the same logits, by two implementations."""
    asked = [(guided.prompt(text), params(guided, kind, max_tokens=MAX_TOKENS)) for text in PROMPTS]
    for (prompt, _), written in zip(asked, guided.write(asked), strict=True):
        assert reference(guided, kind, prompt)[: len(written.tokens)] == written.tokens
        assert written.tokens


@pytest.mark.parametrize("kind", SOURCES)
def test_everything_finished_is_what_was_asked_for(guided: Guided, kind: str) -> None:
    """Greedy, drawn, penalised, biased, in chunks, many at once: checked by other libraries."""
    samplings = [
        Sampling(),
        *(Sampling(temperature=1.0, seed=seed) for seed in range(6)),
        *(Sampling(temperature=0.8, top_k=5, top_p=0.9, seed=seed) for seed in range(3)),
        Sampling(adjustment=Adjustment(repetition_penalty=1.5, logit_bias={70: 40.0, 19: -100.0})),
        Sampling(logprobs=2, adjustment=Adjustment(frequency_penalty=1.0)),
    ]
    asked = [
        (guided.prompt(PROMPTS[0]), params(guided, kind, sampling=sampling, chunk_tokens=i % 4))
        for i, sampling in enumerate(samplings)
    ]
    finished = [one for one in guided.write(asked) if ended_by(one) != "length"]

    assert len(finished) >= len(asked) / 2
    for written in finished:
        assert ended_by(written) in ("constraint-complete", "stop-token")
        assert is_wanted(kind, written.text), written.text


@pytest.mark.parametrize("kind", SOURCES)
def test_guesses_change_no_token(guided: Guided, kind: str) -> None:
    """Greedy, drawn and penalised, with speculation and without, under the same constraint."""
    samplings = [
        Sampling(),
        Sampling(temperature=0.9, seed=5),
        Sampling(adjustment=Adjustment(1.2, 0.4, 0.4)),
    ]
    prompt = guided.prompt(f"{PROMPTS[0]} {PROMPTS[0]}")

    def written(drafts: DraftParams | None) -> list[Written]:
        asked = [
            (prompt, params(guided, kind, sampling=sampling, drafts=drafts))
            for sampling in samplings
        ]
        return guided.write(asked)

    plain = [(one.tokens, one.text, one.finish) for one in written(None)]
    drafts = DraftParams(max_draft=4, min_match=1, max_match=3)
    before = guided.scheduler.stats().drafted_tokens

    assert plain == [(one.tokens, one.text, one.finish) for one in written(drafts)]
    if guided.path == "crumb" and kind == "json-schema":
        assert guided.scheduler.stats().drafted_tokens > before


def params(guided: Guided, kind: str, **options: Any) -> GenerateParams:
    return GenerateParams(matcher=guided.matcher(SOURCES[kind]), **{"max_tokens": 200, **options})


def ended_by(written: Written) -> str:
    assert written.finish is not None
    return written.finish.kind


def is_wanted(kind: str, text: str) -> bool:
    match kind:
        case "json-schema":
            return jsonschema.Draft202012Validator(SCHEMA).is_valid(json.loads(text))
        case "regex":
            return re.fullmatch(REGEX, text) is not None
        case "lark":
            return lark.Lark(LARK).parse(text).data == "start"
    return text in OPTIONS


def reference(guided: Guided, kind: str, prompt: list[int]) -> list[int]:
    """What transformers generates under the same grammar, end token included."""
    path = resolve(guided.path).path
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    ends = guided.info.eos_tokens
    spelling = LLTokenizer(
        (path / "tokenizer.json").read_text(), n_vocab=guided.info.vocab_size, eos_token=ends
    )
    matcher = LLMatcher(spelling, next(SOURCES[kind].grammars()))
    out = model.generate(
        torch.tensor([prompt]),
        logits_processor=[Follow(matcher, len(prompt))],
        max_new_tokens=MAX_TOKENS,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=ends[0],
    )
    generated: list[int] = out[0, len(prompt) :].tolist()
    return generated
