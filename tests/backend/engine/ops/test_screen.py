"""The likeliest outputs by bounds against those of the product itself."""

from __future__ import annotations

import pytest
import torch

from pie_backend.engine.huge_pages import Slabs
from pie_backend.engine.ops.native.layers import NativeLinear
from pie_backend.engine.ops.native.library import Kernels
from pie_backend.engine.ops.native.screen import Screen
from pie_backend.engine.sampling import likeliest


class Head:
    """A head, its screen, and how often the screen could not tell."""

    def __init__(self, kernels: Kernels, weight: torch.Tensor) -> None:
        if kernels.screening is None:
            pytest.skip("these kernels compute all outputs")
        self._linear = NativeLinear(kernels, Slabs(), weight, None)
        self._screen = Screen(kernels.screening, Slabs(), weight)
        self.untold = 0

    def expected(self, states: torch.Tensor) -> list[int]:
        return likeliest(self._linear(states))

    def screen(self, states: torch.Tensor) -> list[int]:
        found = self._screen(states)
        if found is None:
            self.untold += 1
            return self.expected(states)
        return found


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator).to(torch.bfloat16)


@pytest.mark.parametrize("num_rows", [1, 2, 6, 7, 12, 13, 32, 300])
@pytest.mark.parametrize(("num_out", "num_in"), [(40, 32), (1000, 96), (4096, 768)])
def test_the_likeliest_are_those_of_the_product(
    kernels: Kernels, generator: torch.Generator, num_rows: int, num_out: int, num_in: int
) -> None:
    head = Head(kernels, normal(generator, num_out, num_in))
    states = normal(generator, num_rows, num_in)
    assert head.screen(states) == head.expected(states)
    assert head.untold == 0


@pytest.mark.parametrize("num_rows", [1, 20])
def test_outliers_among_the_states_change_nothing(
    kernels: Kernels, generator: torch.Generator, num_rows: int
) -> None:
    head = Head(kernels, normal(generator, 4096, 768))
    states = normal(generator, num_rows, 768)
    states[:, 5] = 80
    states[:, 700] = -300
    assert head.screen(states) == head.expected(states)
    assert head.untold == 0


def test_of_equals_the_first_is_chosen(kernels: Kernels, generator: torch.Generator) -> None:
    weight = normal(generator, 4096, 64)
    states = normal(generator, 16, 64)
    head = Head(kernels, weight)
    for row, token in enumerate(head.expected(states)):
        weight[(token + 1 + 97 * row) % 4096] = weight[token]
    head = Head(kernels, weight)
    assert head.screen(states) == head.expected(states)


def test_outputs_that_rounding_makes_equal_are_told_apart_by_their_place(
    kernels: Kernels, generator: torch.Generator
) -> None:
    """All but the same in float32, a tie in bfloat16: which is where bounds have to be generous."""
    weight = normal(generator, 1, 256).repeat(2048, 1)
    weight[:, :4] = normal(generator, 2048, 4) * 0.01
    states = normal(generator, 8, 256)
    head = Head(kernels, weight)
    assert head.screen(states) == head.expected(states)


@pytest.mark.parametrize("state", [0.0, float("nan"), float("inf")])
def test_where_bounds_do_not_tell_all_outputs_are_computed(
    kernels: Kernels, generator: torch.Generator, state: float
) -> None:
    head = Head(kernels, normal(generator, 4096, 64))
    states = normal(generator, 3, 64)
    states[1] = state
    expected = head.expected(states)
    assert head.screen(states) == expected
    assert head.untold == 1


def test_large_and_tiny_weights(kernels: Kernels, generator: torch.Generator) -> None:
    weight = normal(generator, 512, 128)
    weight[7] *= 1e30
    weight[8] *= 1e-30
    weight[9] = 0
    head = Head(kernels, weight)
    states = normal(generator, 5, 128)
    assert head.screen(states) == head.expected(states)
