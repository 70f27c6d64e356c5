"""Programs by name and by content hash: verified, compiled once, replaced without a gap."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from pie_bakery.component import ComponentError, read_component
from pie_bakery.manifest import Contract, Manifest, ManifestError
from pie_bakery.manifest import parse as parse_manifest
from pie_daemon.errors import PieError
from pie_daemon.runtime.objects import ObjectStore, StoredObject
from pie_daemon.runtime.uploads import Upload, UploadIndex

SYSTEM = "system"
"""The namespace of the watched folder; a user's uploads never shadow it."""

State = Literal["settling", "compiling", "ready", "rejected", "draining"]


class Sandbox(Protocol):
    """What the store asks of the host: compile once, open many times."""

    def check_imports(self, names: Iterable[str]) -> None:
        """Quick; PieError naming the unknown ones."""
        ...

    def compile(self, wasm: Path, digest: str) -> None:
        """Blocks; PieError when the component is invalid or asks for unknown imports."""
        ...


@dataclass(slots=True)
class Program:
    """One version, pinned by its digest for as long as an instance of it lives."""

    name: str
    namespace: str
    digest: str
    """sha256 of the component, hexadecimal."""
    size_bytes: int
    manifest: Manifest
    instances: int = 0


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    name: str
    namespace: str
    version: str
    description: str
    digest: str
    size_bytes: int
    state: State
    reason: str | None
    """Why the newest candidate was rejected; an older version may still serve."""
    updated_at: float
    """Unix seconds."""
    instances: int
    contract: Contract | None = None
    """Which kind of requests the version that serves answers, if any."""


@dataclass(slots=True)
class _Entry:
    """What is known under one name: the version that serves, and how the newest candidate fares."""

    current: Program | None = None
    candidate: State | None = None
    reason: str | None = None
    updated_at: float = field(default_factory=time.time)


class ProgramStore:
    """Thread-safe. `install` blocks on the compiler: call it from a worker thread."""

    def __init__(self, root: Path, sandbox: Sandbox, max_bytes: int) -> None:
        self._objects = ObjectStore(root / "objects", max_bytes)
        self._uploads = UploadIndex(root / "uploads.json")
        self._objects.keep_only({upload.digest for upload in self._uploads.all()})
        self._sandbox = sandbox
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._retired: list[Program] = []
        self._taking: Counter[str] = Counter()

    def install(
        self,
        path: Path,
        namespace: str,
        name: str | None = None,
        manifest_override: bytes | None = None,
    ) -> Program:
        """Makes the component at `path` the version that new launches of its name get.

        The file may change or vanish afterwards: only the store's own copy is used. The name is
        the given one, else the manifest's, else the file's stem.

        Raises:
            PieError: why it was rejected; whatever served under the name goes on serving.
        """
        shown = name or path.stem
        try:
            stored = self._objects.add(path)
        except PieError as error:
            self.reject(namespace, shown, error.message)
            raise
        return self._take(stored, namespace, name, shown, manifest_override)

    def restore(self) -> None:
        """Brings back what users had uploaded before a restart; blocks like `install`."""
        for upload in self._uploads.all():
            try:
                stored = self._objects.get(upload.digest)
                self._take(stored, upload.namespace, upload.name, upload.name, None)
            except (PieError, OSError) as error:
                self.reject(upload.namespace, upload.name, f"cannot be restored: {error}")

    def _take(
        self,
        stored: StoredObject,
        namespace: str,
        name: str | None,
        fallback: str,
        override: bytes | None,
    ) -> Program:
        shown = fallback
        with self._lock:
            self._taking[stored.digest] += 1
        try:
            manifest = self._read(stored.path, override)
            shown = name or manifest.inferlet.name or fallback
            self.progress(namespace, shown, "compiling")
            self._sandbox.compile(stored.path, stored.digest)
        except PieError as error:
            self.reject(namespace, shown, error.message)
            raise
        else:
            program = Program(shown, namespace, stored.digest, stored.size_bytes, manifest)
            if namespace != SYSTEM:
                self._uploads.add(Upload(namespace, shown, stored.digest))
            self._swap(program)
            return program
        finally:
            with self._lock:
                self._taking[stored.digest] -= 1
            self._discard_unused(stored.digest)

    def _read(self, stored: Path, override: bytes | None) -> Manifest:
        """Everything that can be known without compiling."""
        try:
            outline = read_component(stored)
            manifest = parse_manifest(outline.manifest if override is None else override)
        except (ComponentError, ManifestError) as error:
            raise PieError("invalid-argument", str(error)) from None
        if "run" not in outline.exports:
            raise PieError("invalid-argument", "it does not export `run`, the function Pie calls")
        self._sandbox.check_imports(outline.imports)
        return manifest

    def _swap(self, program: Program) -> None:
        with self._lock:
            entry = self._entries.setdefault((program.namespace, program.name), _Entry())
            replaced, entry.current = entry.current, program
            self._retire(replaced)
            entry.candidate = None
            entry.reason = None
            entry.updated_at = time.time()
        if replaced is not None:
            self._discard_unused(replaced.digest)

    def _retire(self, program: Program | None) -> None:
        if program is not None and program.instances:
            self._retired.append(program)

    def _discard_unused(self, digest: str) -> None:
        """The file of a version that no name refers to; instances run from compiled code."""
        with self._lock:
            used = any(e.current and e.current.digest == digest for e in self._entries.values())
            used = used or self._taking[digest] > 0
        if not used:
            self._objects.discard(digest)

    def progress(self, namespace: str, name: str, state: State) -> None:
        with self._lock:
            entry = self._entries.setdefault((namespace, name), _Entry())
            entry.candidate = state
            entry.updated_at = time.time()

    def reject(self, namespace: str, name: str, reason: str) -> None:
        with self._lock:
            entry = self._entries.setdefault((namespace, name), _Entry())
            entry.candidate = "rejected"
            entry.reason = reason
            entry.updated_at = time.time()

    def remove(self, namespace: str, name: str) -> None:
        """New launches no longer find it; running instances finish on the version they have."""
        with self._lock:
            entry = self._entries.pop((namespace, name), None)
            removed = entry.current if entry else None
            self._retire(removed)
        if removed is not None:
            self._discard_unused(removed.digest)

    def resolve(self, username: str, name: str) -> Program:
        """`system` first, then the user's own; `sha256:<hex>` finds a version by content."""
        with self._lock:
            found = self._find(username, name)
        if found is not None:
            return found
        raise self._missing(username, name)

    def _find(self, username: str, name: str) -> Program | None:
        spaces = (SYSTEM, username)
        if name.startswith("sha256:"):
            for (space, _), entry in self._entries.items():
                program = entry.current
                if program and space in spaces and program.digest == name[7:]:
                    return program
            return None
        entries = (self._entries.get((space, name)) for space in spaces)
        return next((e.current for e in entries if e is not None and e.current), None)

    def _missing(self, username: str, name: str) -> PieError:
        with self._lock:
            spaces = (SYSTEM, username)
            entries = [
                self._entries[space, name] for space in spaces if (space, name) in self._entries
            ]
            known = sorted({n for s, n in self._entries if s in spaces})
        for entry in entries:
            if entry.candidate == "rejected":
                return PieError("not-found", f"program {name!r} was rejected: {entry.reason}")
            return PieError("busy", f"program {name!r} is {entry.candidate}; try again soon")
        there_are = f"there are: {', '.join(known)}" if known else "there are none yet"
        return PieError("not-found", f"no program is called {name!r}; {there_are}")

    def acquire(self, program: Program) -> None:
        with self._lock:
            program.instances += 1

    def release(self, program: Program) -> None:
        with self._lock:
            program.instances -= 1
            self._retired = [old for old in self._retired if old.instances]

    def programs(self, username: str | None = None) -> list[ProgramInfo]:
        """Everything under `system` and the user's namespace (all with None), by name."""
        with self._lock:
            shown = [
                _info(space, name, entry)
                for (space, name), entry in self._entries.items()
                if username is None or space in (SYSTEM, username)
            ]
            shown += [_draining(old) for old in self._retired]
        return sorted(shown, key=lambda info: (info.namespace, info.name, info.state))


def _info(namespace: str, name: str, entry: _Entry) -> ProgramInfo:
    program = entry.current
    state: State = "ready" if program else (entry.candidate or "rejected")
    facts = program.manifest.inferlet if program else None
    return ProgramInfo(
        name=name,
        namespace=namespace,
        version=facts.version if facts else "",
        description=facts.description if facts else "",
        digest=program.digest if program else "",
        size_bytes=program.size_bytes if program else 0,
        state=state,
        reason=entry.reason if entry.candidate == "rejected" else _pending(entry),
        updated_at=entry.updated_at,
        instances=program.instances if program else 0,
        contract=facts.contract if facts else None,
    )


def _pending(entry: _Entry) -> str | None:
    if entry.current and entry.candidate:
        return f"a new version is {entry.candidate}"
    return None


def _draining(program: Program) -> ProgramInfo:
    info = _info(program.namespace, program.name, _Entry(current=program))
    return replace(info, state="draining")
