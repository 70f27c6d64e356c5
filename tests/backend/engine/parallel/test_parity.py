"""Several ranks say what one process says: tokens of transformers in float32, and near in bf16."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pie_backend.base import Backend
from pie_backend.batch import Adjustment, Batch, PageFile, Probe, Row, Sample, Sampling
from pie_backend.engine.engine import Engine
from pie_backend.engine.parallel.engine import ParallelEngine
from support.checkpoints import VOCAB_SIZE, Checkpoint, Recipe, prompts
from support.driver import Driver
from support.parity import assert_same

OpenEngine = Callable[..., Engine]
OpenTeam = Callable[..., ParallelEngine]

# A tie is allowed and reported.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default:tie at token:UserWarning"),
]
# The tolerance of one process, see test_bfloat16.
_TOLERANCE = 0.25
THREE = Recipe(
    "three",
    "LlamaForCausalLM",
    {
        "num_key_value_heads": 3,
        "intermediate_size": 150,
        "vocab_size": 509,
        "attention_bias": True,
        "mlp_bias": True,
    },
)


def test_greedy(checkpoint: Checkpoint, open_team: OpenTeam) -> None:
    """Every architecture with two and with six KV heads, biases, tied and untied heads; sixteen
    prompts of different lengths together, prefill and decoding in the same batches."""
    engine = open_team(checkpoint)
    checkpoint.generate_all(prompts(16))
    driver = Driver(engine)
    results = driver.run([driver.add(prompt, 32) for prompt in prompts(16)], chunk=30)
    for prompt, generated in zip(prompts(16), results, strict=True):
        assert_same(checkpoint, prompt, generated)
    assert engine.info.tensor_parallel == 2


def test_three_ranks_and_a_vocabulary_that_they_do_not_divide(
    tmp_path: Path, open_team: OpenTeam
) -> None:
    """The last rank's part of the head is smaller; none of its padding is ever drawn."""
    checkpoint = THREE.build(tmp_path)
    driver = Driver(open_team(checkpoint, tensor_parallel=3))
    chosen = [[token % 509 for token in prompt] for prompt in prompts(6)]
    checkpoint.generate_all(chosen)
    for prompt, generated in zip(chosen, driver.run([driver.add(p) for p in chosen]), strict=True):
        assert_same(checkpoint, prompt, generated)


def test_forks(qwen3: Checkpoint, open_team: OpenTeam) -> None:
    """A context whose pages were copied, in a chain, goes on like the original."""
    engine = open_team(qwen3, kv_pages=20)
    prompt = prompts(16)[-2]
    engine.execute(Batch(0, [Row(prompt[:-1], 0, [3, 9, 4])]))
    copies = [(3, 11), (9, 12), (4, 13), (11, 1), (12, 2), (13, 0)]
    row = Row(prompt[-1:], len(prompt) - 1, [1, 2, 0], [Sample(0, Sampling())])
    assert engine.execute(Batch(1, [row], copies)).tokens == [qwen3.generate(prompt, 1)]


def test_pages_in_host_memory(qwen3: Checkpoint, open_team: OpenTeam) -> None:
    """Evicted, overwritten by another context, and brought back to other places."""
    engine = open_team(qwen3, kv_pages=6, host_pages=3)
    prompt, other = prompts(16)[-2], prompts(16, seed=5)[-1]
    engine.execute(Batch(0, [Row(prompt[:-1], 0, [3, 1, 4])]))
    engine.execute(Batch(1, [], evict=[(3, 0), (1, 2), (4, 1)]))
    engine.execute(Batch(2, [Row(other, 0, [0, 1, 2, 3, 4, 5])]))
    row = Row(prompt[-1:], len(prompt) - 1, [5, 0, 2], [Sample(0, Sampling())])
    found = engine.execute(Batch(3, [row], restore=[(0, 5), (2, 0), (1, 2)]))
    assert found.tokens == [qwen3.generate(prompt, 1)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_page_files_know_no_degree(
    qwen3: Checkpoint, open_engine: OpenEngine, open_team: OpenTeam, tmp_path: Path, dtype: str
) -> None:
    """What two ranks wrote one process reads, and the other way round, byte for byte."""
    prompt = prompts(3)[2][:65]
    one, two = (build(qwen3, kv_pages=8, dtype=dtype) for build in (open_engine, open_team))
    assert one.info.page_bytes == two.info.page_bytes
    row = Row(prompt[64:], 64, [5, 3, 0, 1, 6], [Sample(0, Sampling())])
    for number, (writer, reader) in enumerate([(one, two), (two, one)]):
        first, second = str(tmp_path / f"{number}"), str(tmp_path / f"{number}-again")
        expected = _written(writer, prompt, first)
        load = PageFile(first, [5, 3, 0, 1], 0)
        assert reader.execute(Batch(0, [], load=load)).file_failure is None
        again = PageFile(second, [5, 3, 0, 1], 0)
        assert reader.execute(Batch(1, [], store=again)).file_failure is None
        assert Path(first).read_bytes() == Path(second).read_bytes()
        if dtype == "float32":
            assert expected == reader.execute(Batch(2, [row])).tokens


def _written(engine: Backend, prompt: list[int], path: str) -> list[list[int]]:
    """Its pages in two parts; and the token after it."""
    row = Row(prompt[64:], 64, [4, 2, 7, 1, 0], [Sample(0, Sampling())])
    engine.execute(Batch(0, [Row(prompt[:64], 0, row.pages)]))
    for part in (PageFile(path, [4, 2, 7], 0), PageFile(path, [1], 3)):
        assert engine.execute(Batch(2, [], store=part)).file_failure is None
    return engine.execute(Batch(3, [row])).tokens


def test_a_file_that_fails_is_told_and_nothing_else(
    qwen3: Checkpoint, open_team: OpenTeam, tmp_path: Path
) -> None:
    """All ranks go on."""
    engine = open_team(qwen3, kv_pages=4)
    nowhere = PageFile(str(tmp_path / "no" / "folder"), [0], 0)
    assert "folder" in (engine.execute(Batch(0, [], store=nowhere)).file_failure or "")
    assert "folder" in (engine.execute(Batch(1, [], load=nowhere)).file_failure or "")
    row = Row([1, 2], 0, [1], [Sample(1, Sampling())])
    assert engine.execute(Batch(2, [row])).tokens == [qwen3.generate([1, 2], 1)]


def test_masks_and_probes(
    checkpoint: Checkpoint, open_engine: OpenEngine, open_team: OpenTeam
) -> None:
    """Logits under attention masks, hidden ranges and moved positions are those of one process,
    which are compared with transformers elsewhere."""
    one, two = (build(checkpoint, kv_pages=32) for build in (open_engine, open_team))
    rows = _masked_rows()
    for step in range(2):
        found, expected = (engine.execute(Batch(step, rows)) for engine in (two, one))
        for ours, theirs in zip(_flat(found.probes), _flat(expected.probes), strict=True):
            torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=1e-3)


def _masked_rows() -> list[Row]:
    source = random.Random(4)
    tokens = [source.randrange(VOCAB_SIZE) for _ in range(60)]
    masks = [
        (source.getrandbits(60) | 1 << place).to_bytes(8, "little") for place in range(len(tokens))
    ]
    probes = [Probe(i, kind) for i in (3, 40, 59) for kind in ("logits", "hidden-state")]  # type: ignore[arg-type]
    return [
        Row(tokens, 0, [7, 3, 9, 1], probes=probes, attention=masks),
        Row(tokens[:40], 0, [2, 5, 8], probes=[Probe(39, "logits")], hidden=[(3, 20)]),
        Row(tokens[:9], 0, [4], probes=[Probe(8, "logits")], positions=list(range(5, 14))),
    ]


def _flat(probes: list[list[object]]) -> list[torch.Tensor]:
    return [torch.tensor(array("f", one.values)) for row in probes for one in row]  # type: ignore[attr-defined]


def test_draws_are_those_of_one_process(
    qwen3: Checkpoint, open_engine: OpenEngine, open_team: OpenTeam
) -> None:
    """With seeds, filters, penalties and log probabilities, in float32."""
    wanted = [
        Sampling(0.9, 50, 0.95, 0.01, seed, Adjustment(presence_penalty=0.5), logprobs=3)
        for seed in range(5)
    ]

    def run(engine: Backend) -> list[list[int]]:
        driver = Driver(engine)
        return driver.run(
            [driver.add(prompts(16)[i * 3], 20, sampling) for i, sampling in enumerate(wanted)], 9
        )

    assert run(open_engine(qwen3)) == run(open_team(qwen3))


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_bfloat16_stays_near(checkpoint: Checkpoint, open_team: OpenTeam, kernels: str) -> None:
    """Teacher-forced, within the tolerance that one process has."""
    prompt = prompts(16)[-1]
    tokens = prompt + checkpoint.generate(prompt, 64)
    expected = checkpoint.logits(tokens)
    engine = open_team(checkpoint, dtype="bfloat16", kernels=kernels)
    probes = [Probe(index, "logits") for index in range(len(tokens))]
    [found] = engine.execute(Batch(0, [Row(tokens, 0, list(range(20)), probes=probes)])).probes
    logits = torch.stack(_flat([list(found)]))
    distance = ((logits - expected).abs().amax(-1) / expected.std(-1)).mean()
    assert float(distance) < _TOLERANCE


def test_the_embedded_model(open_engine: OpenEngine, open_team: OpenTeam) -> None:
    """In float32 it says the same as in one process."""
    crumb = Checkpoint(Path("crumb"), None)

    def run(engine: Backend) -> list[list[int]]:
        driver = Driver(engine)
        return driver.run([driver.add(prompt, 32) for prompt in prompts(8)], chunk=25)

    assert run(open_engine(crumb)) == run(open_team(crumb))
