"""What one running instance may touch. Its own thread finds it through `guest.current()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pie_daemon.errors import PieError
from pie_daemon.host.adapters import AdapterFolder
from pie_daemon.host.guest import Guest

if TYPE_CHECKING:
    from pie_backend.batch import BackendInfo
    from pie_backend.tokenizer import Tokenizer
    from pie_daemon.grammar.compiler import GrammarCompiler
    from pie_daemon.host.inbox import Inbox
    from pie_daemon.host.interfaces.launch import LaunchOptions
    from pie_daemon.host.outside import Tools, Web
    from pie_daemon.host.topics import Topics
    from pie_daemon.scheduler.journal import Journal
    from pie_daemon.scheduler.replicas.front import Replicas
    from pie_daemon.scheduler.service import Scheduler
    from pie_daemon.scheduler.telling import Wake


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model as programs see it; also the object behind a `model` handle."""

    name: str
    tokenizer: Tokenizer
    scheduler: Scheduler | Replicas
    grammars: GrammarCompiler
    adapters: AdapterFolder = field(default_factory=AdapterFolder)

    @property
    def info(self) -> BackendInfo:
        """Of the backend that serves it now; tokens and the longest context never change."""
        return self.scheduler.info


@dataclass(frozen=True, slots=True)
class Models:
    """The models of this daemon by name; `default` is the one `open(none)` gives."""

    by_name: Mapping[str, Model]
    default: str

    def get(self, name: str | None) -> Model:
        wanted = self.default if name is None else name
        model = self.by_name.get(wanted)
        if model is None:
            known = ", ".join(sorted(self.by_name))
            raise PieError("not-found", f"no model is called {wanted!r}; there are: {known}")
        return model


EventKind = Literal["stdout", "stderr", "log", "message", "blob", "outcome"]


class Write(Protocol):
    """A change on its way to the disk."""

    @property
    def done(self) -> bool: ...

    @property
    def error(self) -> PieError | None:
        """Why it was refused, once it is done."""
        ...


class Storage(Protocol):
    """The durable pairs of this program for its user."""

    def get(self, key: str) -> bytes | None: ...

    def keys(self, prefix: str) -> list[str]: ...

    def write(self, key: str, value: bytes | None, notify: Callable[[], None]) -> Write:
        """None deletes. Never blocks; `notify` is called from another thread once it is done."""
        ...


class SavedContext(Protocol):
    """What was saved of a context."""

    @property
    def model(self) -> str: ...

    @property
    def revision(self) -> str:
        """`BackendInfo.revision` of the model when it was saved."""
        ...

    @property
    def journal(self) -> Journal: ...


class SavedContexts(Protocol):
    """The saved contexts of this program's user."""

    def save(self, name: str, info: BackendInfo, journal: Journal, durable: bool) -> Path | None:
        """Where the pages may be written to, if they are to be kept."""
        ...

    def get(self, name: str) -> SavedContext: ...

    def pages_of(self, record: Any, info: BackendInfo) -> Path | None:
        """Where the pages of what `get` gave are, if they are kept."""
        ...

    def names(self) -> list[str]: ...

    def delete(self, name: str) -> None: ...


class LaunchedChild(Protocol):
    """An instance that this one has launched."""

    @property
    def id(self) -> str: ...

    def outcome(self) -> tuple[str, str | PieError] | None:
        """None while it runs, then ("ok", result) or ("err", error)."""
        ...

    def cancel(self) -> None: ...

    def let_go(self, cancel: bool) -> None:
        """No more wakes from it; unless cancelled it runs on by itself."""
        ...


@dataclass(frozen=True, slots=True)
class HostPorts:
    """The instance's ways to the outside, given by the runtime."""

    emit: Callable[[EventKind, bytes, str], None]
    """(kind, data, name): one event for the client; blocks while the client lags behind."""
    offer: Callable[[bytes], list[Wake] | None]
    """(text): one message for the client, from any thread while the program is in a host call. It
    never blocks: None, and nothing is sent, while the client lags behind. What it returns else has
    to be called soon, so that somebody reads the message."""
    budget: Callable[[], dict[str, float]]
    """What is left of the launch's budgets; absent where there is no limit."""
    launch: Callable[[str, str, LaunchOptions], LaunchedChild]
    """(program, input, options): a child, whose end wakes this instance's mailbox."""


@dataclass(kw_only=True)
class HostContext(Guest):
    """A guest with the facts and ways that Pie's own interfaces need."""

    instance_id: str
    program: str
    username: str
    models: Models
    inbox: Inbox
    topics: Topics
    storage: Storage
    web: Web
    tools: Tools
    saved: SavedContexts
    priority_max: int
    """Priorities of its contexts are within [-priority_max, priority_max]."""
    ports: HostPorts
    num_constraints: int = 0
    """Open now."""
    pass_bytes: int = 0
    """Held by forward passes that are not dropped."""
