"""Tells one content of a model directory from another, without reading all of its weights."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from pie_backend.base import BackendError

WHOLE_BYTES = 16 << 20
"""Files up to this size are hashed whole."""
_NUM_SAMPLES = 64
_SAMPLE_BYTES = 16 << 10


def fingerprint(folder: Path) -> str:
    """Of configuration, tokenizer and weights. Training changes nearly every weight, so that the
    sizes of large files, and samples from their beginning to their end, tell versions apart.

    Raises:
        BackendError: a file cannot be read.
    """
    digest = blake2b(digest_size=16)
    names = ("config.json", "tokenizer.json")
    paths = [folder / name for name in names if (folder / name).is_file()]
    paths += sorted(folder.glob("*.safetensors"))
    try:
        for path in paths:
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            for part in _parts(path, size):
                digest.update(part)
    except OSError as error:
        raise BackendError(f"{folder} cannot be read: {error}") from error
    return digest.hexdigest()


def _parts(path: Path, size: int) -> list[bytes]:
    if size <= WHOLE_BYTES:
        return [path.read_bytes()]
    parts = []
    with path.open("rb") as file:
        for number in range(_NUM_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * number // (_NUM_SAMPLES - 1))
            parts.append(file.read(_SAMPLE_BYTES))
    return parts
