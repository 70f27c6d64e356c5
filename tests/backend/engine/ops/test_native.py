"""The compiled kernels, each against what it computes, in float32 or float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pie_backend.batch import Row
from pie_backend.engine.attention.gathered import GatheredAttention
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.huge_pages import Slabs
from pie_backend.engine.kv_cache import KVCache, KVShape
from pie_backend.engine.ops.native import attention
from pie_backend.engine.ops.native.attention import NativeAttention
from pie_backend.engine.ops.native.layers import (
    Int8Linear,
    NativeLinear,
    NativeNorm,
    NativePlacement,
)
from pie_backend.engine.ops.native.library import Kernels
from pie_backend.engine.ops.torch_ops import TorchPlacement
from pie_backend.engine.ragged import flatten
from pie_backend.engine.sampling import likeliest

ROUNDING = 2**-8
"""Half a unit in the last place of bfloat16, relative."""


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator).to(torch.bfloat16)


def assert_close(found: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> None:
    """`scale`: of the numbers that were summed up, where they cancel each other."""
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=2 * ROUNDING, atol=2 * ROUNDING * scale
    )


@pytest.mark.parametrize("num_rows", [1, 7, 16, 17, 32, 33, 50, 100])
@pytest.mark.parametrize(("num_out", "num_in"), [(32, 32), (96, 64), (40, 96), (1000, 768)])
def test_products(
    kernels: Kernels, generator: torch.Generator, num_rows: int, num_out: int, num_in: int
) -> None:
    """Every form of a product, with outputs and rows that do not fill their tiles."""
    weight = normal(generator, num_out, num_in)
    x, other = normal(generator, num_rows, num_in), normal(generator, num_rows, num_out)
    for bias in (None, normal(generator, num_out)):
        linear = NativeLinear(kernels, Slabs(), weight, bias)
        exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
        scale = num_in**0.5
        assert_close(linear(x), exact, 0.05)
        assert_close(linear.silu(x), F.silu(exact), 0.05)
        assert_close(linear.times(x, other), exact * other.double(), 0.05 * scale)
        assert_close(linear.plus(x, other), exact + other.double(), 0.05)


def test_products_of_more_rows_than_stay_in_the_cache(
    kernels: Kernels, generator: torch.Generator
) -> None:
    weight, x = normal(generator, 64, 2048), normal(generator, 700, 2048)
    found = NativeLinear(kernels, Slabs(), weight, None)(x)
    assert_close(found, F.linear(x.double(), weight.double()), 0.2)


@pytest.mark.parametrize("num_rows", [1, 17, 40])
def test_products_of_int8_weights(
    kernels: Kernels, generator: torch.Generator, num_rows: int
) -> None:
    """They are those of the rounded weights, and a rounded weight is off by half a step at most."""
    weight, bias = normal(generator, 40, 96), normal(generator, 40)
    weight[3] = 0
    x, other = normal(generator, num_rows, 96), normal(generator, num_rows, 40)
    linear = Int8Linear(kernels, Slabs(), weight, bias)
    steps = weight.float().abs().amax(1, keepdim=True) / 127
    rounded = (weight.float() / steps.clamp(min=1e-9)).round() * steps
    exact = F.linear(x.double(), rounded.double(), bias.double())
    assert_close(linear(x), exact, 0.1)
    assert_close(linear.silu(x), F.silu(exact), 0.1)
    assert_close(linear.plus(x, other), exact + other.double(), 0.1)


def test_weights_do_not_overlap(kernels: Kernels, generator: torch.Generator) -> None:
    """Matrices of one model lie side by side in memory."""
    memory = Slabs()
    weights = [normal(generator, size, 32) for size in (33, 32, 65)]
    layers = [NativeLinear(kernels, memory, weight, None) for weight in weights]
    x = normal(generator, 3, 32)
    for weight, layer in zip(weights, layers, strict=True):
        assert_close(layer(x), F.linear(x.double(), weight.double()), 0.05)


@pytest.mark.parametrize("size", [1, 16, 100, 16384])
def test_the_likeliest_is_the_first_of_the_largest(
    kernels: Kernels, generator: torch.Generator, size: int
) -> None:
    """bfloat16 has so few numbers that the largest is there more than once."""
    logits = normal(generator, 40, size) - 20
    logits[0], logits[1], logits[2, -1] = -torch.inf, 0.0, 5.0
    tokens = torch.empty(40, dtype=torch.int64)
    kernels.likeliest(logits.data_ptr(), tokens.data_ptr(), *logits.shape)
    assert tokens.tolist() == likeliest(logits.float())
    assert tokens[:3].tolist() == [0, 0, size - 1]


@pytest.mark.parametrize("size", [16, 24, 100, 768])
def test_norms(kernels: Kernels, generator: torch.Generator, size: int) -> None:
    """Also of rows that do not fill their vectors."""
    x, weight = normal(generator, 70, size), normal(generator, size)
    found = NativeNorm(kernels, weight, 1e-6)(x)
    assert_close(found, F.rms_norm(x.double(), (size,), weight.double(), 1e-6))


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 40])
def test_places(
    kernels: Kernels, generator: torch.Generator, normed: bool, num_tokens: int
) -> None:
    """Query and key are normalised and turned as torch does it; the value stays as it is."""
    heads, size = (6, 2), 32
    angles = torch.rand(100, size // 2, generator=generator) * 6
    rotations = torch.complex(angles.cos(), angles.sin())
    norms = torch.randn(sum(heads), size, generator=generator) if normed else None
    positions = torch.randint(100, (num_tokens,), generator=generator)
    qkv = normal(generator, num_tokens, sum(heads) + heads[1], size)

    expected_place = TorchPlacement(rotations, heads, norms, 1e-6)
    expected = expected_place(qkv.clone(), expected_place.turns(positions))
    place = NativePlacement(kernels, rotations, heads, norms, 1e-6)
    found = place(qkv.clone(), place.turns(positions))

    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


class Case:
    """One batch over a cache of random pages: by the kernels, and by torch in float32."""

    def __init__(
        self,
        kernels: Kernels,
        generator: torch.Generator,
        heads: tuple[int, int] = (4, 2),
        head_dim: int = 64,
        page_size: int = 16,
    ) -> None:
        num_heads, num_kv_heads = heads
        self.caches = [
            KVCache(KVShape(2, num_kv_heads, head_dim, page_size, dtype), CpuDevice(), 200)
            for dtype in (torch.float32, torch.bfloat16)
        ]
        for exact, rounded in self.pools():
            rounded.copy_(normal(generator, *rounded.shape))
            exact.copy_(rounded)
        self.by_torch = GatheredAttention(self.caches[0], num_heads)
        self.native = NativeAttention(kernels, self.caches[1], num_heads)
        self.generator, self.heads, self.head_dim = generator, heads, head_dim
        self.page_size = page_size
        self.unused = list(range(200))

    def pools(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(*(cache._pool for cache in self.caches), strict=True))

    def row(self, start: int, num_tokens: int, **rest: object) -> Row:
        num_pages = -(-(start + num_tokens) // self.page_size)
        pages = torch.randperm(200, generator=self.generator)[:num_pages].tolist()
        return Row([0] * num_tokens, start, pages, **rest)  # type: ignore[arg-type]

    def check(self, rows: list[Row]) -> None:
        flat = flatten(rows, self.page_size)
        num_heads, num_kv_heads = self.heads
        planes = num_heads + 2 * num_kv_heads
        qkv = normal(self.generator, len(flat.tokens), planes, self.head_dim)
        parts = [num_heads, num_kv_heads, num_kv_heads]
        expected = self.by_torch.plan(flat).attend(1, *qkv.float().split(parts, 1))
        found = self.native.plan(flat).attend(1, *qkv.split(parts, 1))
        assert_close(found, expected)
        for exact, rounded in self.pools():
            assert torch.equal(rounded.float(), exact), "keys and values lie elsewhere"


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (7, 1), (20, 2)])
@pytest.mark.parametrize("head_dim", [32, 64, 128, 256])
def test_rows_of_one_token(
    kernels: Kernels, generator: torch.Generator, heads: tuple[int, int], head_dim: int
) -> None:
    """Of lengths around a vector, a page and a round of the kernel."""
    case = Case(kernels, generator, heads, head_dim)
    case.check([case.row(start, 1) for start in (0, 1, 15, 16, 17, 100, 255, 256, 600)])


def branch(case: Case, trunk: list[int], num_tokens: int, more: int = 1) -> Row:
    """A row of `more` tokens after pages of others and `num_tokens` in pages of its own."""
    num_pages = -(-(num_tokens + more) // case.page_size)
    own = [case.unused.pop() for _ in range(num_pages)]
    return Row([0] * more, len(trunk) * case.page_size + num_tokens, [*trunk, *own])


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (7, 1), (20, 2)])
@pytest.mark.parametrize("head_dim", [32, 64, 256])
def test_rows_that_begin_with_the_same_pages(
    kernels: Kernels,
    generator: torch.Generator,
    heads: tuple[int, int],
    head_dim: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On two levels, beside rows that share nothing."""
    monkeypatch.setattr(attention, "_WORTH", 1)
    case = Case(kernels, generator, heads, head_dim)
    trunk, twig = list(range(17)), list(range(17, 23))
    rows = [branch(case, trunk, number % 5) for number in range(6)]
    rows += [branch(case, trunk + twig, 3 * number) for number in range(11)]
    rows += [Row([0], 70, [150, 151, 152, 153, 154]), Row([0], 0, [155])]
    case.check(rows)
    plan = case.native.plan(flatten(rows, case.page_size))
    assert plan.singles is not None
    assert (plan.singles.together is not None) == kernels.gathers_together


@pytest.mark.parametrize("page_size", [1, 3, 8, 32])
def test_shared_pages_of_other_sizes(
    kernels: Kernels,
    generator: torch.Generator,
    page_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "_WORTH", 1)
    case = Case(kernels, generator, page_size=page_size)
    case.check([branch(case, list(range(67)), number) for number in range(3)])


def test_rows_that_share_pages_but_hide_some_are_by_themselves(
    kernels: Kernels, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_WORTH", 1)
    case = Case(kernels, generator)
    trunk = list(range(8))
    rows = [branch(case, trunk, number) for number in range(4)]
    hiding = Row([0], 130, [*trunk, 190], hidden=[(5, 20), (40, 41)])
    masking = Row([0], 129, [*trunk, 191], attention=[b"\xf0" * 17])
    case.check([hiding, *rows, masking, branch(case, trunk, 2, more=5)])


@pytest.mark.parametrize("num_tokens", [2, 5, 32, 33])
def test_rows_of_a_few_tokens(
    kernels: Kernels,
    generator: torch.Generator,
    num_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of which sees those before it; beside single ones, longer ones and masked ones."""
    monkeypatch.setattr(attention, "_WORTH", 1)
    case = Case(kernels, generator)
    masked = case.row(7, 3, attention=[b"\xff\x00", b"\xf7\x01", b"\xbf\x03"])
    short = [Row([0] * num_tokens, 100, list(range(9))), Row([0] * num_tokens, 0, [10, 11, 12])]
    case.check(
        [Row([0] * 50, 20, [20, 21, 22, 23, 24]), *short, Row([0], 40, [30, 31, 32]), masked]
    )


@pytest.mark.parametrize("page_size", [1, 3, 8, 32])
def test_pages_of_other_sizes(kernels: Kernels, generator: torch.Generator, page_size: int) -> None:
    case = Case(kernels, generator, page_size=page_size)
    case.check([case.row(start, 1) for start in (0, 40, 90)] + [case.row(30, 45)])


def test_what_a_single_row_does_not_see(kernels: Kernels, generator: torch.Generator) -> None:
    """Hidden parts of the context, whole rounds of it too, and masks, beside a plain row."""
    case = Case(kernels, generator)
    mask = bytes([0, 0, 0, 0b10100000, *[0b1] * 30])
    case.check(
        [
            case.row(600, 1, hidden=[(3, 590)]),
            case.row(300, 1, hidden=[(0, 7), (9, 40)]),
            case.row(271, 1, attention=[mask]),
            case.row(100, 1),
        ]
    )


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (7, 1)])
@pytest.mark.parametrize("head_dim", [32, 64, 128, 256])
def test_causal_rows(
    kernels: Kernels, generator: torch.Generator, heads: tuple[int, int], head_dim: int
) -> None:
    """From the first token on, and in the midst of a context, beside rows of one token."""
    case = Case(kernels, generator, heads, head_dim)
    rows = [case.row(0, 2), case.row(0, 33), case.row(5, 300), case.row(200, 17), case.row(129, 16)]
    case.check([*rows, case.row(70, 1)])


def test_longer_rows_that_are_not_causal(kernels: Kernels, generator: torch.Generator) -> None:
    """Those with hidden parts or masks, in one batch with those without."""
    case = Case(kernels, generator)
    mask = [bytes([0b1, 0, 0, 0b11]), bytes([0b1, 0, 0, 0b1])]
    case.check(
        [
            case.row(100, 20, hidden=[(10, 50)]),
            case.row(24, 2, attention=mask),
            case.row(24, 9),
        ]
    )
