"""What `bakery create` writes: a program that runs as it is, and shows where to go on."""

from __future__ import annotations

import re
from pathlib import Path

from pie_bakery.errors import UsageError
from pie_bakery.manifest import NAME

_FILES = {
    "pie.toml": """\
[inferlet]
name = "{name}"
version = "0.1.0"
description = "What {name} does, in one line"

# What it asks for at most; without a line the operator's own limit holds.
[grants]
# memory_mb = 64
# cpu_s = 10
""",
    "main.py": '''\
"""{name}: answers one question, streaming the words as they come."""

from typing import Any

from inferlet import Arguments, Chat, Model


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    question = arguments.text("question", "What is Pie?")
    max_tokens = arguments.integer("max_tokens", 64, minimum=1)
    arguments.finish()

    chat = Chat(Model.open()).user(question)
    reply = chat.relay(max_tokens=max_tokens, temperature=0)
    return {{"text": reply.text, "finish_reason": reply.finish_reason}}
''',
    "README.md": """\
# {name}

An inferlet: a program that runs beside the model in [Pie](https://pypi.org/project/pie-daemon/).

```sh
bakery build .                                    # makes {name}.wasm
pie run ./{name}.wasm -- --question "What is Pie?"
cp {name}.wasm ~/.local/state/pie/inferlets/      # deploys it to a running daemon
```

`main.py` holds the program, `pie.toml` its name and what it asks for.
""",
    ".gitignore": """\
*.wasm
__pycache__/
.venv/
""",
}


def create(folder: Path) -> list[Path]:
    """Makes `folder`, whose last part is the inferlet's name; returns the files written."""
    check_name(folder.name)
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another name")
    folder.mkdir(parents=True)
    written = []
    for file_name, template in _FILES.items():
        path = folder / file_name
        path.write_text(template.format(name=folder.name))
        written.append(path)
    return written


def check_name(name: str) -> None:
    if re.match(NAME, name) and len(name) <= 64:
        return
    suggestion = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").lstrip("0123456789-")[:64]
    hint = f"; `{suggestion}` would do" if suggestion else ""
    raise UsageError(
        f"`{name}` is no name for an inferlet: lower-case letters, digits and single dashes, "
        f"starting with a letter{hint}"
    )
