"""From an author's folder to one component file; one module per language."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pie_bakery import component, manifest
from pie_bakery.build import python
from pie_bakery.errors import AuthorError, UsageError


@dataclass(frozen=True, slots=True)
class Built:
    path: Path
    size_bytes: int
    manifest: manifest.Manifest


def build(folder: Path, out: Path | None = None) -> Built:
    """Builds the inferlet in `folder` to `out`, by default `folder/NAME.wasm`."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; `bakery create {folder}` makes one")
    text, read = read_manifest(folder)
    target = out if out is not None else folder / f"{read.inferlet.name}.wasm"
    if target.is_dir():
        raise UsageError(f"{target} is a folder; -o takes the name of the file to write")
    data = component.with_custom_section(python.build(folder), component.MANIFEST, text)
    _write_atomically(target, data)
    return Built(target, len(data), read)


def read_manifest(folder: Path) -> tuple[bytes, manifest.Manifest]:
    """The text and meaning of `pie.toml`, which must give a name."""
    path = folder / manifest.FILE_NAME
    needed = f'it needs [inferlet] with name = "{folder.resolve().name}"'
    try:
        text = path.read_bytes()
        read = manifest.parse(text)
    except FileNotFoundError:
        raise AuthorError(f"missing; {needed}", path) from None
    except manifest.ManifestError as error:
        raise AuthorError(error.message, path, error.line) from None
    if read.inferlet.name is None:
        raise AuthorError(f"`name` is missing; {needed}", path)
    return text, read


def _write_atomically(target: Path, data: bytes) -> None:
    """A watch folder never sees half a file: it is written beside the target and renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
