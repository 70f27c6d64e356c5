"""Programs by name and by content hash: verified, compiled once, replaced without a gap."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from pie_bakery.component import ComponentError, read_component
from pie_bakery.manifest import Manifest, ManifestError
from pie_bakery.manifest import parse as parse_manifest
from pie_daemon.errors import PieError
from pie_daemon.runtime.uploads import Upload, UploadIndex

SYSTEM = "system"
"""The namespace of the watched folder; a user's uploads never shadow it."""

State = Literal["settling", "compiling", "ready", "rejected", "draining"]
_COPY_BYTES = 1 << 20


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
    path: Path
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
        self._objects = root / "objects"
        self._objects.mkdir(parents=True, exist_ok=True)
        self._uploads = UploadIndex(root / "uploads.json")
        self._sandbox = sandbox
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._retired: list[Program] = []

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
        digest, stored, size_bytes = self._copy(path)
        shown = name or path.stem
        try:
            manifest = self._read(stored, manifest_override)
            shown = name or manifest.inferlet.name or path.stem
            self.progress(namespace, shown, "compiling")
            self._sandbox.compile(stored, digest)
        except PieError as error:
            self.reject(namespace, shown, error.message)
            raise
        program = Program(shown, namespace, digest, stored, size_bytes, manifest)
        if namespace != SYSTEM:
            self._uploads.add(Upload(namespace, shown, digest))
        self._swap(program)
        return program

    def restore(self) -> None:
        """Brings back what users had uploaded before a restart; blocks like `install`."""
        for upload in self._uploads.all():
            stored = self._objects / f"{upload.digest}.wasm"
            try:
                self.install(stored, upload.namespace, upload.name)
            except (PieError, OSError) as error:
                self.reject(upload.namespace, upload.name, f"cannot be restored: {error}")

    def _copy(self, path: Path) -> tuple[str, Path, int]:
        """Into the content-addressed store, hashing on the way; durable before it returns."""
        sha = hashlib.sha256()
        size_bytes = 0
        handle, temporary = tempfile.mkstemp(dir=self._objects, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as target:
                for block in _blocks(path):
                    size_bytes += len(block)
                    self._check_size(path, size_bytes)
                    sha.update(block)
                    target.write(block)
                target.flush()
                os.fsync(target.fileno())
            digest = sha.hexdigest()
            stored = self._objects / f"{digest}.wasm"
            os.replace(temporary, stored)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_directory(self._objects)
        return digest, stored, size_bytes

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

    def _check_size(self, path: Path, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise PieError(
                "invalid-argument",
                f"{path.name} is larger than limits.upload_bytes={self._max_bytes}",
            )

    def _swap(self, program: Program) -> None:
        with self._lock:
            entry = self._entries.setdefault((program.namespace, program.name), _Entry())
            self._retire(entry.current)
            entry.current = program
            entry.candidate = None
            entry.reason = None
            entry.updated_at = time.time()

    def _retire(self, program: Program | None) -> None:
        if program is not None and program.instances:
            self._retired.append(program)

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
            if entry is not None:
                self._retire(entry.current)

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
    )


def _pending(entry: _Entry) -> str | None:
    if entry.current and entry.candidate:
        return f"a new version is {entry.candidate}"
    return None


def _draining(program: Program) -> ProgramInfo:
    info = _info(program.namespace, program.name, _Entry(current=program))
    return replace(info, state="draining")


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while block := source.read(_COPY_BYTES):
            yield block


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
