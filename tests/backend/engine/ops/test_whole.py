"""All layers in one call, against the same kernels one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pie_backend.batch import Row
from pie_backend.engine.config import RopeConfig
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.huge_pages import Slabs
from pie_backend.engine.kv_cache import KVCache, KVShape
from pie_backend.engine.ops.native.attention import NativeAttention
from pie_backend.engine.ops.native.layers import (
    Int8Linear,
    NativeLinear,
    NativeNorm,
    NativePlacement,
)
from pie_backend.engine.ops.native.library import Kernels
from pie_backend.engine.ops.native.whole import NativeLayers, native_layers
from pie_backend.engine.ops.torch_ops import TorchNorm
from pie_backend.engine.ragged import flatten
from pie_backend.engine.rope import rotation_table
from pie_backend.engine.transformer import MLP, DecoderLayer, OneByOne, SelfAttention

HIDDEN, INNER, HEAD_DIM, PAGE_SIZE, NUM_PAGES = 96, 160, 32, 16, 300


class Model:
    """Random layers, and a cache of random pages."""

    def __init__(
        self,
        kernels: Kernels,
        heads: tuple[int, int] = (6, 2),
        linear: type[NativeLinear] = NativeLinear,
        *,
        has_biases: bool = False,
        has_head_norms: bool = True,
    ) -> None:
        self.kernels = kernels
        self.heads = heads
        self._source = torch.Generator().manual_seed(0)
        self._linear = linear
        self._memory = Slabs()
        self._has_biases = has_biases
        self._has_head_norms = has_head_norms
        shape = KVShape(3, heads[1], HEAD_DIM, PAGE_SIZE, torch.bfloat16)
        self.cache = KVCache(shape, CpuDevice(), NUM_PAGES)
        self.cache._pool.copy_(self.normal(*self.cache._pool.shape))
        self.layers = [self._layer(number) for number in range(3)]

    def normal(self, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=self._source).to(torch.bfloat16)

    def row(self, start: int, num_tokens: int = 1, **rest: object) -> Row:
        num_pages = -(-(start + num_tokens) // PAGE_SIZE)
        pages = torch.randperm(NUM_PAGES, generator=self._source)[:num_pages].tolist()
        return Row([0] * num_tokens, start, pages, **rest)  # type: ignore[arg-type]

    def states(
        self, together: bool, rows: list[Row], kept: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """After the last layer, and the cache; neither has been touched."""
        flat = flatten(rows, PAGE_SIZE)
        hidden = torch.randn(len(flat.tokens), HIDDEN, generator=torch.Generator().manual_seed(1))
        before = self.cache._pool.clone()
        layers = native_layers(self.kernels, self.layers) if together else OneByOne(self.layers)
        plan = NativeAttention(self.kernels, self.cache, self.heads[0]).plan(flat)
        made = layers(hidden.to(torch.bfloat16), flat.positions, plan, kept)
        after = self.cache._pool.clone()
        self.cache._pool.copy_(before)
        return made, after

    def check(self, rows: list[Row], kept: torch.Tensor | None = None) -> None:
        found, expected = (self.states(together, rows, kept) for together in (True, False))
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1]), "keys and values lie elsewhere"
        assert expected[0].isfinite().all()

    def _layer(self, number: int) -> DecoderLayer:
        num_heads, num_kv_heads = self.heads
        planes = num_heads + 2 * num_kv_heads
        norms = 1 + 0.3 * self.normal(num_heads + num_kv_heads, HEAD_DIM).float()
        rotations = rotation_table(RopeConfig(10_000.0, None), HEAD_DIM, 4096)
        place = NativePlacement(
            self.kernels, rotations, self.heads, norms if self._has_head_norms else None, 1e-6
        )
        attention = SelfAttention(
            number,
            HEAD_DIM,
            self._product(planes * HEAD_DIM, HIDDEN),
            self._product(HIDDEN, num_heads * HEAD_DIM),
            place,
        )
        gate, up = self._product(INNER, HIDDEN), self._product(INNER, HIDDEN)
        mlp = MLP(gate, up, self._product(HIDDEN, INNER))
        return DecoderLayer(self._norm(), attention, self._norm(), mlp)

    def _product(self, num_out: int, num_in: int) -> NativeLinear:
        weight = 0.1 * self.normal(num_out, num_in)
        bias = self.normal(num_out) if self._has_biases else None
        return self._linear(self.kernels, self._memory, weight, bias)

    def _norm(self) -> NativeNorm:
        return NativeNorm(self.kernels, 1 + 0.3 * self.normal(HIDDEN), 1e-6)


@pytest.mark.parametrize("num_rows", [1, 2, 7, 13, 33, 100])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (20, 1)])
def test_the_same_numbers_as_one_by_one(
    kernels: Kernels, heads: tuple[int, int], num_rows: int
) -> None:
    model = Model(kernels, heads)
    model.check([model.row(5 * number % 300) for number in range(num_rows)])


def test_layers_with_biases_and_without_norms_of_heads(kernels: Kernels) -> None:
    model = Model(kernels, has_biases=True, has_head_norms=False)
    model.check([model.row(start) for start in (0, 17, 40)])


@pytest.mark.parametrize("num_rows", [1, 17])
def test_weights_in_int8(kernels: Kernels, num_rows: int) -> None:
    model = Model(kernels, linear=Int8Linear)
    model.check([model.row(number) for number in range(num_rows)])


def test_rows_that_do_not_see_everything(kernels: Kernels) -> None:
    model = Model(kernels)
    rows = [model.row(70), model.row(50, hidden=[(3, 9)]), model.row(7, attention=[b"\xa5"])]
    model.check(rows)


def test_rows_elsewhere_than_where_they_are_counted(kernels: Kernels) -> None:
    model = Model(kernels)
    model.check([model.row(20, positions=[700]), model.row(33)])


def test_only_tokens_that_somebody_asks_about(kernels: Kernels) -> None:
    model = Model(kernels)
    model.check([model.row(start) for start in (4, 9, 30)], torch.tensor([0, 2]))


def test_longer_rows(kernels: Kernels) -> None:
    """Beside single ones and alone; also of more tokens than stay in the cache at one time."""
    model = Model(kernels)
    model.check([model.row(20), model.row(3, num_tokens=40), model.row(50, num_tokens=70)])
    model.check([model.row(0, num_tokens=50)])
    model.check([model.row(0, num_tokens=3000)])


@pytest.mark.parametrize("kept", [[0], [1, 40, 99], [98, 99]])
def test_longer_rows_of_which_few_tokens_are_asked_about(kernels: Kernels, kept: list[int]) -> None:
    model = Model(kernels)
    rows = [model.row(20), model.row(3, num_tokens=39), model.row(50, num_tokens=60)]
    model.check(rows, torch.tensor(kept))


def test_longer_rows_that_are_not_causal_go_one_by_one(kernels: Kernels) -> None:
    model = Model(kernels)
    model.check([model.row(70), model.row(50, num_tokens=3, hidden=[(3, 9)])])


def test_batches_of_different_sizes_follow_each_other(kernels: Kernels) -> None:
    """What one leaves behind does not reach the next."""
    model = Model(kernels)
    layers = native_layers(kernels, model.layers)
    attention = NativeAttention(kernels, model.cache, model.heads[0])
    for num_rows in (3, 40, 3):
        flat = flatten([model.row(30) for _ in range(num_rows)], PAGE_SIZE)
        hidden = model.normal(num_rows, HIDDEN)
        expected = OneByOne(model.layers)(hidden, flat.positions, attention.plan(flat))
        found = layers(hidden.clone(), flat.positions, attention.plan(flat))
        assert torch.equal(found, expected)


def test_a_layer_with_a_part_of_another_kind_goes_one_by_one(kernels: Kernels) -> None:
    layers = Model(kernels).layers
    assert isinstance(native_layers(kernels, layers), NativeLayers)
    other = TorchNorm(torch.ones(HIDDEN, dtype=torch.bfloat16), 1e-6)
    layers[1] = replace(layers[1], mlp_norm=other)
    assert isinstance(native_layers(kernels, layers), OneByOne)
