"""A GPU that is none: tensors that say they are on one, and are computed on the processor.

Whatever mixes tensors of both places fails, as it would on a GPU, and so does reading one in place
(`numpy`). Values are real: an engine on this device answers like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu import reference
from pie_backend.batch import BackendConfig
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.ops.base import Operators
from pie_backend.engine.ops.flashinfer.library import Kernels
from pie_backend.engine.ops.flashinfer.operators import FlashInferOperators
from pie_backend.engine.ops.torch_ops import TorchOperators

PLACE = torch.device("cuda", 0)
_READ = {
    torch.Tensor.tolist,
    torch.Tensor.item,
    torch.Tensor.__bool__,
    torch.Tensor.__int__,
    torch.Tensor.__float__,
    torch.Tensor.data_ptr,
}
_MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.Tensor.copy_}


class PretendTensor(torch.Tensor):
    """`held` is where its numbers are."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> PretendTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=PLACE
        )
        made.held = held
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READ:
            return func(args[0].held)
        try:
            with torch._C.DisableTorchFunctionSubclass():  # what comes to the host is no subclass
                return func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if "not linked with support for cuda" not in str(error):
                raise
            # Some of torch's entrances ask CUDA to stand by before they come to dispatching.
            return _compute(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    target = kwargs.get("device")
    flat = pytree.tree_leaves((args, kwargs))
    tensors = [leaf for leaf in flat if isinstance(leaf, torch.Tensor)]
    pretend = [isinstance(one, PretendTensor) for one in tensors]
    # A number in a tensor of its own may stand anywhere, as on a real one.
    numbers = [one.dim() == 0 for one in tensors]
    alike = {there for there, number in zip(pretend, numbers, strict=True) if not number}
    if func not in _MOVES and len(alike) > 1:
        raise RuntimeError(f"{func}: tensors of two devices")
    out = func(*_held(args), **_held(_without_device(kwargs)))
    if _is_in_place(func):
        return args[0]
    there = any(pretend) if target is None else torch.device(target).type == PLACE.type
    if not there:
        return out
    return pytree.tree_map_only(torch.Tensor, PretendTensor, out)


def _is_in_place(func: Any) -> bool:
    name = func._schema.name if hasattr(func, "_schema") else func.__name__
    return name.endswith("_") and not name.endswith("__")


def _held(tree: Any) -> Any:
    return pytree.tree_map_only(PretendTensor, lambda one: one.held, tree)


def _without_device(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "device": torch.device("cpu")} if kwargs.get("device") else kwargs


class _Making(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tensors that are made at the pretended place."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


@contextmanager
def pretending() -> Iterator[None]:
    """`torch.tensor(..., device=PLACE)` and the like work, without CUDA."""
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with patch.object(torch.cuda, "_lazy_init"), _Making():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


class PretendGpu(CpuDevice):
    """Implements `Device`: FlashInfer's operators over its reference, or torch's."""

    name = "cuda (pretended)"
    compiles_late = True
    place = draws_on = PLACE

    def __init__(self, make: Callable[[], Operators]) -> None:
        super().__init__()
        self.make = make
        self.num_finished = 0

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=PLACE)

    def operators(
        self, model: DecoderConfig, dtype: torch.dtype, config: BackendConfig
    ) -> Operators:
        return self.make()

    def finish(self) -> None:
        self.num_finished += 1


def with_flashinfer() -> PretendGpu:
    return PretendGpu(lambda: FlashInferOperators(cast(Kernels, reference)))


def with_torch() -> PretendGpu:
    return PretendGpu(lambda: TorchOperators("torch, pretended"))
