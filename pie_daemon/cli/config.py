"""`pie config show`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pie_daemon.cli import exits
from pie_daemon.cli.terminal import print_json, print_table
from pie_daemon.config import load


def show_config(overrides: Sequence[str], *, as_json: bool) -> int:
    """What `pie serve` with the same arguments would run with."""
    loaded = load(overrides)
    if as_json:
        keys = [
            {
                "key": row.key,
                "value": row.value,
                "default": row.default,
                "source": row.source,
                "class": row.reload,
            }
            for row in loaded.rows
        ]
        print_json({"searched": [str(folder) for folder in loaded.folders], "keys": keys})
        return exits.OK
    rows = [
        [row.key, _text(row.value), _text(row.default), row.source, row.reload]
        for row in loaded.rows
    ]
    print_table(["KEY", "VALUE", "DEFAULT", "SOURCE", "CHANGE"], rows)
    return exits.OK


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
