"""Reads named tensors out of one or many safetensors files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pie_backend.base import BackendError
from pie_backend.model_dir import read_json

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_FLOATS = {torch.float32, torch.float16, torch.bfloat16}


class Checkpoint:
    """The tensors of a model directory. Each is read when taken; nothing is kept."""

    def __init__(self, path: Path, dtype: torch.dtype, place: torch.device) -> None:
        """Tensors go to `place`, one by one."""
        self.place = place
        self._path = path
        self.dtype = dtype
        self._files = _locate(path)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def num_bytes(self) -> int:
        """Of all tensors in the model's dtype, nearly: files also have headers."""
        files = set(self._files.values())
        return sum(file.stat().st_size * self.dtype.itemsize // _itemsize(file) for file in files)

    def take(
        self, name: str, *shape: int, only: tuple[int, int] | None = None, dim: int = 0
    ) -> torch.Tensor:
        """The tensor in the model's dtype; of `dim` only [begin, end), the rest is not read.

        Raises:
            BackendError: it is missing, misshapen or not a float tensor.
        """
        file = self._files.get(name)
        if file is None:
            raise BackendError(f"{self._path}: tensor {name} is missing from the checkpoint")
        found, tensor = _read(file, name, only, dim)
        if found != shape:
            raise BackendError(
                f"{file}: {name} has shape {list(found)}; config.json wants {list(shape)}"
            )
        if tensor.dtype not in _FLOATS:
            raise BackendError(
                f"{file}: {name} is {tensor.dtype}; only float tensors are supported"
            )
        return tensor.to(self.place).to(self.dtype)


def _read(
    file: Path, name: str, only: tuple[int, int] | None, dim: int
) -> tuple[tuple[int, ...], torch.Tensor]:
    """Shape of all of it, and what is wanted of it."""
    try:
        with safe_open(file, framework="pt") as opened:
            part = opened.get_slice(name)
            shape = tuple(part.get_shape())
            tensor: torch.Tensor = (
                opened.get_tensor(name)
                if only is None or dim >= len(shape)
                else part[(*[slice(None)] * dim, slice(*only))]
            )
            return shape, tensor
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BackendError(f"{file}: {name} cannot be read: {error}") from error


def _itemsize(file: Path) -> int:
    """Bytes of a number in it: a file of several dtypes is taken for one of its first."""
    try:
        with safe_open(file, framework="pt") as opened:
            name = next(iter(opened.keys()), None)
            return 4 if name is None or opened.get_slice(name).get_dtype() == "F32" else 2
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BackendError(f"{file} is not a readable safetensors file: {error}") from error


def _locate(path: Path) -> dict[str, Path]:
    if (path / _INDEX).is_file():
        return _from_index(path)
    if (path / _SINGLE).is_file():
        return dict.fromkeys(_names(path / _SINGLE), path / _SINGLE)
    raise BackendError(f"{path} holds neither {_SINGLE} nor {_INDEX}; convert it to safetensors")


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BackendError(f"{file} is not a readable safetensors file: {error}") from error


def _from_index(path: Path) -> dict[str, Path]:
    index = path / _INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise BackendError(f"{index}: `weight_map` is missing")
    files: dict[str, Path] = {}
    for name, shard in weight_map.items():
        # A shard is a file beside the index; anything else could read outside the model.
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise BackendError(f"{index}: {name} is in {shard!r}; expected the name of a file here")
        files[name] = path / shard
    for file in sorted(set(files.values())):
        if not file.is_file():
            raise BackendError(f"{file} is missing, though {index.name} lists it")
    return files
