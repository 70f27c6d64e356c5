"""Inferlets for tests, built by bakery once per content."""

from __future__ import annotations

from pathlib import Path

from pie_bakery.build import build
from support import guests

OWN = Path(__file__).parent / "inferlets"
SHIPPED = guests.REPOSITORY / "sdk/inferlets"
EXAMPLES = guests.REPOSITORY / "docs/examples"
MEASURED = guests.REPOSITORY / "benchmarks/inferlets"
_SDK = guests.REPOSITORY / "sdk/python/inferlet"
_WIT = guests.REPOSITORY / "sdk/wit"
_BAKERY = guests.REPOSITORY / "bakery/pie_bakery/build"


def built(name: str) -> Path:
    """The component of a shipped inferlet, an example, a test's own one or a benchmark's."""
    roots = (OWN, SHIPPED, EXAMPLES, MEASURED)
    folder = next(root / name for root in roots if (root / name).is_dir())
    target = guests.CACHE / f"{guests.digest_of([folder, _SDK, _WIT, _BAKERY], name)}.wasm"
    return guests.once(target, lambda partial: _build(folder, partial))


def _build(folder: Path, target: Path) -> None:
    build(folder, target)
