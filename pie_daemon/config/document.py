"""Renders the schema: the packaged YAML files and the table of docs/configuration.md.

`python -m pie_daemon.config.document` rewrites both in a checkout; a test compares them.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from pie_daemon.config import schema
from pie_daemon.config.schema import Leaf
from pie_daemon.config.sections import PieConfig
from pie_daemon.config.tree import Key, dotted

BEGIN, END = "<!-- keys:begin -->", "<!-- keys:end -->"
_STANDARD_OPTION = {"backend": "auto"}


def group_file(section: str) -> str:
    """The packaged default option of one group, e.g. `scheduler/default.yaml`."""
    return f"{section}/{_STANDARD_OPTION.get(section, 'default')}.yaml"


def groups() -> list[str]:
    return [name for name in schema.sections() if name != schema.MODELS]


def primary_yaml() -> str:
    chosen = (f"  - {name}: {Path(group_file(name)).stem}" for name in groups())
    return "\n".join(
        [
            "# The packaged defaults: one option of each group. Your own values belong into",
            "# /etc/pie/config.yaml or ~/.config/pie/config.yaml, which hold only what differs.",
            "defaults:",
            *chosen,
            "  - _self_",
            "",
            "# More models than the default one: `NAME: {path: DIRECTORY}`.",
            "models: {}",
            "",
        ]
    )


def group_yaml(section: str) -> str:
    struct: Any = next(f.type for f in msgspec.structs.fields(PieConfig) if f.name == section)
    lines = [f"# {struct.__doc__}"]
    for key in schema.NAMED:
        if key[0] == section:
            lines += ["", *_entries(key)]
    for leaf in schema.leaves().values():
        if leaf.key[0] == section and schema.ANY_NAME not in leaf.key:
            lines += ["", *_comment(leaf), f"{leaf.key[-1]}: {_scalar(leaf.default)}"]
    return "\n".join([*lines, ""])


def _entries(key: Key) -> list[str]:
    struct = schema.NAMED[key]
    keys = ", ".join(field.name for field in msgspec.structs.fields(struct))
    return [f"# `NAME: {{KEY: VALUE}}` with {keys}. {struct.__doc__}", f"{key[-1]}: {{}}"]


def _comment(leaf: Leaf) -> list[str]:
    why = f" Default: {leaf.why}." if leaf.why else ""
    text = f"{leaf.description}.{why} Allowed: {leaf.allowed}; {leaf.reload}."
    return [f"# {line}" for line in textwrap.wrap(text, 96)]


def _scalar(value: Any) -> str:
    plain = msgspec.to_builtins(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def table() -> str:
    head = ["| key | default | change | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *(_table_row(leaf) for leaf in schema.leaves().values())])


def _table_row(leaf: Leaf) -> str:
    unit = f" {leaf.unit}" if leaf.unit and leaf.default is not None else ""
    default = f"`{_scalar(leaf.default)}`{unit}"
    why = f" _Default:_ {leaf.why}." if leaf.why else ""
    text = f"{leaf.description}. _Allowed:_ {leaf.allowed}.{why}"
    return f"| `{dotted(leaf.key)}` | {default} | {leaf.reload} | {text} |"


def replace_table(document: str) -> str:
    """The document with the table between its two marks made anew."""
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def write(root: Path) -> None:
    """Rewrites conf/ and docs/configuration.md of the checkout at `root`."""
    files = {"config.yaml": primary_yaml()} | {group_file(g): group_yaml(g) for g in groups()}
    for name, text in files.items():
        path = root / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    page = root / "docs" / "configuration.md"
    page.write_text(replace_table(page.read_text()))


if __name__ == "__main__":
    write(Path(__file__).parents[2])
