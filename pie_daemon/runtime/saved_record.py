"""One saved context: whose, under which name, of which model, and its journal."""

from __future__ import annotations

import msgspec

from pie_backend.batch import BackendInfo
from pie_daemon.scheduler.journal import Journal


class PageForm(msgspec.Struct, frozen=True):
    """What pages look like; those of another form are of no use."""

    dtype: str
    page_size: int
    page_bytes: int

    @classmethod
    def of(cls, info: BackendInfo) -> PageForm:
        return cls(info.dtype, info.page_size, info.page_bytes)


class SavedContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str
    name: str
    model: str
    """The model's name in the daemon."""
    revision: str
    """Which content of the model it was; another one would read the tokens differently."""
    journal: Journal
