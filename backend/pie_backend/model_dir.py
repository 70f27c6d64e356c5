"""A Hugging Face model directory: what can be learnt from its small files, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pie_backend.base import BackendError

CRUMB = Path(__file__).parent / "crumb"


@dataclass(frozen=True)
class ModelDir:
    """A directory that holds at least a readable config.json."""

    path: Path
    config: dict[str, Any]

    @property
    def architecture(self) -> str:
        names = self.config.get("architectures")
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise BackendError(f"{self.path / 'config.json'}: `architectures` names no model class")
        return names[0]

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        return read_json(self.path / "generation_config.json", default={})

    @cached_property
    def eos_tokens(self) -> list[int]:
        """Every id that ends a turn: generation_config wins over config, as in transformers."""
        for source in (self.generation_config, self.config):
            ids = source.get("eos_token_id")
            if ids is not None:
                return self._token_ids(ids)
        return []

    def _token_ids(self, ids: object) -> list[int]:
        as_list: list[Any] = ids if isinstance(ids, list) else [ids]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in as_list):
            raise BackendError(f"{self.path}: `eos_token_id` is {ids!r}; expected ids")
        return as_list


def resolve(spec: str | Path) -> ModelDir:
    """Opens `crumb` (the embedded model) or the directory at a path.

    Raises:
        BackendError: there is no usable model; the message says what to do.
    """
    path = CRUMB if str(spec) == "crumb" else Path(spec).expanduser()
    if not path.is_dir():
        raise BackendError(_why_no_directory(path))
    if not (path / "config.json").is_file():
        raise BackendError(f"{path} holds no config.json; expected a Hugging Face model directory")
    return ModelDir(path, read_json(path / "config.json"))


def _why_no_directory(path: Path) -> str:
    if path.is_file():
        return f"{path} is a file; give the directory with config.json and *.safetensors instead"
    if path == CRUMB:
        return (
            f"the embedded model is missing from this installation ({path}); reinstall pie-backend"
        )
    return (
        f"no model directory at {path}; give a directory with config.json and *.safetensors, or "
        "`crumb` for the embedded model (Pie downloads nothing: fetch one with `hf download`)"
    )


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """Reads a JSON object; a missing file is `default` when one is given.

    Raises:
        BackendError: the file is missing, unreadable, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if default is None:
            raise BackendError(f"{path} is missing") from None
        return default
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise BackendError(f"{path} holds a {type(value).__name__}; expected a JSON object")
    return value
