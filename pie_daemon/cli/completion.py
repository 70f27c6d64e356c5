"""What the shell offers after TAB. It must be quick, and silent whatever happens."""

from __future__ import annotations

from collections.abc import Callable

_TIMEOUT_S = 0.5


def instances(incomplete: str) -> list[str]:
    from pie_client.sync import Client

    return _ask(lambda client: [i.id for i in client.instances()], incomplete, Client)


def programs(incomplete: str) -> list[str]:
    from pie_client.sync import Client

    return _ask(lambda client: [p.name for p in client.programs()], incomplete, Client)


def keys(incomplete: str) -> list[str]:
    """Names of configuration keys, with the sign that follows them."""
    from pie_daemon.config import schema

    names = [".".join(key) for key in schema.leaves() if schema.ANY_NAME not in key]
    return [f"{name}=" for name in names if name.startswith(incomplete)]


def _ask(question: Callable[..., list[str]], incomplete: str, client: type) -> list[str]:
    from pie_client.errors import PieError

    try:
        with client.connect(timeout_s=_TIMEOUT_S) as connected:  # type: ignore[attr-defined]
            names = question(connected)
    except (PieError, OSError):
        return []
    return sorted({name for name in names if name.startswith(incomplete)})
