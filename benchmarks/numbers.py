"""How numbers are printed, in tables and pictures alike."""

from __future__ import annotations


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def quantity(value: float, unit: str) -> str:
    return ratio(value) if unit == "x" else f"{number(value)} {unit}"


def ratio(value: float) -> str:
    return f"{value:.2f}x"


def rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
