"""Says whether a file can be served, and everything that is wrong with it at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pie_bakery import component, manifest
from pie_bakery.build.toolchain import sdk_folder

# What the host links of WASI; filesystem and sockets are there and refuse without a grant.
_WASI = re.compile(r"^wasi:(io|clocks|random|cli|filesystem|sockets)/[a-z0-9-]+@0\.2\.\d+$")
_VERSIONED = re.compile(r"^(?P<interface>.+)@(?P<line>\d+\.\d+)\.(?P<patch>\d+)$")


@dataclass(frozen=True, slots=True)
class Report:
    path: Path
    size_bytes: int
    problems: tuple[str, ...]
    manifest: manifest.Manifest | None
    imports: tuple[str, ...]
    exports: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def check(path: Path) -> Report:
    """Reads the file; raises OSError when it cannot be read."""
    data = path.read_bytes()
    try:
        outline = component.parse(data)
    except component.ComponentError as error:
        return Report(path, len(data), (str(error),), None, (), ())
    read, problems = _manifest(outline)
    problems += foreign_imports(outline.imports, world_interfaces(sdk_folder() / "wit"))
    if "run" not in outline.exports:
        problems.append("it does not export `run`, the function that Pie calls")
    return Report(path, len(data), tuple(problems), read, outline.imports, outline.exports)


def world_interfaces(wit: Path) -> frozenset[str]:
    """Full names of what the world imports, such as `pie:inferlet/models@0.1.0`."""
    text = re.sub(r"//.*", "", (wit / "inferlet.wit").read_text())
    package = re.search(r"package\s+([\w:-]+)@([\w.+-]+)\s*;", text)
    if package is None:
        raise ValueError(f"{wit / 'inferlet.wit'} names no package")
    world = text[text.index("world inferlet") :]
    names = re.findall(r"import\s+([\w-]+)\s*;", world)
    return frozenset(f"{package[1]}/{name}@{package[2]}" for name in names)


def foreign_imports(imports: tuple[str, ...], world: frozenset[str]) -> list[str]:
    """A sentence for every import that the host does not offer."""
    offered = {split[0]: split for split in map(_split, world)}
    problems = []
    for name in imports:
        if _WASI.match(name):
            continue
        interface, line, patch = _split(name)
        if interface not in offered:
            problems.append(f"it imports `{name}`, which is not in the world")
        elif (line, patch) > offered[interface][1:] or line != offered[interface][1]:
            known = "{}@{}.{}".format(*offered[interface])
            problems.append(f"it imports `{name}`; this version of Pie offers `{known}`")
    return problems


def _split(name: str) -> tuple[str, str, int]:
    found = _VERSIONED.match(name)
    return (name, "", 0) if found is None else (found[1], found[2], int(found[3]))


def _manifest(outline: component.Component) -> tuple[manifest.Manifest | None, list[str]]:
    """A component without one is served too: it takes its name from the file."""
    if not outline.manifest:
        return None, []
    try:
        return manifest.parse(outline.manifest), []
    except manifest.ManifestError as error:
        return None, [f"its manifest: {error}"]
