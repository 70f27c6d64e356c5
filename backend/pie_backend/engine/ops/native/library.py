"""The kernels as functions of addresses; the C files say what lies there."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CDLL, POINTER, Structure, c_float, c_int, c_int64, c_void_p, cast
from typing import Any

import torch

from pie_backend.engine.ops.native.build import load

PLAIN, SILU, TIMES, PLUS = range(4)
"""What follows a matrix product; numbered as in shared.h."""

GATHERED = 258
"""Numbers for each query, as in shared.h."""

_NAMES = {"avx512": "AVX-512", "avx2": "AVX2"}
_P, _N = c_void_p, c_int64


class ModelAt(Structure):
    """As in layers.c, like those below."""

    _fields_ = [
        *[(name, _N) for name in ("kv_heads", "queries", "size", "plane", "page_size")],
        *[("eps", c_float), ("scale", c_float)],
        ("turns", _P),
    ]


class TogetherAt(Structure):
    _fields_ = [
        *[(name, _P) for name in ("begins", "gathered", "members", "groups", "levels")],
        ("num_levels", _N),
    ]


class LongAt(Structure):
    _fields_ = [*[(name, _N) for name in ("begin", "tokens", "start")], ("pages", _P)]


class BatchAt(Structure):
    _fields_ = [
        *[(name, _N) for name in ("tokens", "rows", "width", "bias_stride")],
        *[(name, _N) for name in ("num_long", "num_kept")],
        *[(name, _P) for name in ("positions", "slots", "lengths", "pages", "biases")],
        ("together", POINTER(TogetherAt)),
        ("longer", POINTER(LongAt)),
        *[(name, _P) for name in ("scratch", "kept")],
    ]


class LinearAt(Structure):
    _fields_ = [("weight", _P), ("scales", _P), ("bias", _P), ("n", _N), ("k", _N)]


class LayerAt(Structure):
    _fields_ = [
        *[(name, LinearAt) for name in ("qkv", "output", "gate", "up", "down")],
        *[(name, _P) for name in ("attention_norm", "mlp_norm", "head_norms")],
    ]


class EndsAt(Structure):
    _fields_ = [
        *[(name, _P) for name in ("embedding", "norm")],
        ("head", LinearAt),
        *[(name, _P) for name in ("screen", "weight", "packed", "scales", "errors", "lengths")],
    ]


class Screening:
    """See screen.py."""

    def __init__(self, library: CDLL) -> None:
        self.pack = _bind(library, "screen_pack", [_P] * 5 + [_N] * 2)
        self.choose = _bind(library, "screen", [_P] * 7 + [_N] * 3)
        self.choose_at = cast(library.pie_screen, c_void_p)


class Kernels:
    def __init__(self, tiles: bool = True) -> None:
        """Threads and tiles are the library's: those of the last one that was made hold for all.

        Raises: NoKernels."""
        kind, library = load()
        self._num_threads = torch.get_num_threads()
        library.pie_set_threads(self._num_threads)
        self._scratch = torch.empty(0, dtype=torch.bfloat16)
        has_tiles = bool(library.pie_use_tiles(tiles))
        self.name = f"native, {'AMX' if has_tiles else _NAMES[kind]}"
        self.rms_norm = _bind(library, "rms_norm", [_P, _P, _P, _N, _N, c_float])
        self.likeliest = _bind(library, "likeliest", [_P, _P, _N, _N])
        self.place = _bind(library, "place", [_P] * 4 + [_N] * 4 + [c_float])
        self.write = _bind(library, "write", [_P] * 4 + [_N] * 5)
        self.attend_rows = _bind(library, "attend_rows", [_P] * 6 + [_N] * 9 + [c_float, _P])
        self.attend_causal = _bind(library, "attend_causal", [_P] * 5 + [_N] * 8 + [c_float])
        self.pack = _bind(library, "pack", [_P, _P, _N, _N])
        self.pack_int8 = _bind(library, "pack_int8", [_P, _P, _P, _N, _N])
        self.linear = _bind(library, "linear", [_P] * 7 + [_N] * 3 + [c_int])
        self.screening = Screening(library) if library.pie_screens() else None
        """None: all outputs are computed, even where only the likeliest is wanted."""
        model, batch, layers = POINTER(ModelAt), POINTER(BatchAt), POINTER(LayerAt)
        self.layers = _bind(library, "layers", [model, batch, layers, _P, _N] + [_P] * 6)
        self.walk = _bind(
            library,
            "walk",
            [model, batch, layers, _P, _N, *[_P] * 6, POINTER(EndsAt), _P, _P, c_int],
        )
        self.gathers_together = bool(library.pie_gathers_together())
        """Several rows' attention to the pages that they begin with."""
        library.pie_layers_work_size.restype = _N
        self.layers_work_size = int(library.pie_layers_work_size())

    def scratch(self, size: int) -> torch.Tensor:
        """bfloat16, `size` numbers for each thread; all who ask share it, one call at a time."""
        if len(self._scratch) < size * self._num_threads:
            self._scratch = torch.empty(size * self._num_threads, dtype=torch.bfloat16)
        return self._scratch


def _bind(library: CDLL, name: str, arguments: list[Any]) -> Callable[..., None]:
    function = getattr(library, f"pie_{name}")
    function.argtypes, function.restype = arguments, None
    bound: Callable[..., None] = function
    return bound
