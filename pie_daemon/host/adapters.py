"""Which adapters programs may open: the subfolders of the folder that the operator names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pie_backend.adapter_dir import CONFIG_FILE
from pie_daemon.errors import PieError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """The adapters of one model. The folder is read at each question: a copy into it is enough."""

    path: Path | None = None
    """None: programs may open none."""

    @classmethod
    def at(cls, path: str | None) -> AdapterFolder:
        return cls(None if path is None else Path(path).expanduser())

    def names(self) -> list[str]:
        if self.path is None or not self.path.is_dir():
            return []
        found = (file.parent.name for file in self.path.glob(f"*/{CONFIG_FILE}"))
        return sorted(name for name in found if _NAME.fullmatch(name))

    def find(self, name: str, model: str) -> Path:
        """`model`: whose adapters these are, for the message.

        Raises:
            PieError: `denied` when programs may open none, else `not-found` with what there is.
        """
        if self.path is None:
            raise PieError(
                "denied",
                f"programs may open no adapters of {model}: its key `adapters` names no folder",
            )
        names = self.names()
        if name not in names:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise PieError(
                "not-found", f"{model} has no adapter {name!r}; there are: {shown or 'none'}"
            )
        return self.path / name
