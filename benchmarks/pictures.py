"""Pictures that can be read at a glance, also by those who do not tell red from green."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from benchmarks.numbers import number, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
BLUE, SKY, ORANGE, GREEN, GREY = "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#999999"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", SKY, "#D55E00", "#F0E442", "#000000")


def colour(name: str, reference: str | None = None) -> str:
    """The one that everything is compared with is orange, Pie's own are blue, others are grey."""
    if name == reference:
        return ORANGE
    return BLUE if name.startswith("Pie") else GREY


def bars(
    figure: Figure,
    panels: Mapping[str, Mapping[str, float]],
    unit: str,
    reference: str | None = None,
) -> None:
    """One panel beside the other, each with a horizontal bar for each contender, and its ratio to
    the reference. Every panel has a scale of its own, from 0."""
    names = list(next(iter(panels.values())))
    figure.set_size_inches(3.2 * len(panels) + 2.4, 0.42 * len(names) + 1.3)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        shown = [values.get(name, 0.0) for name in names]
        axis.barh(names, shown, color=[colour(name, reference) for name in names], height=0.7)
        base = values.get(reference) if reference else None
        for place, value in enumerate(shown):
            _write_beside(axis, _label(value, base), (value, place))
        axis.set_xlim(0, max(shown, default=1) * 1.45 or 1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(unit, fontsize=9)
        _plain(axis)
        if base:
            axis.axvline(base, color=ORANGE, linewidth=1, linestyle=":")
    axes[0].invert_yaxis()


def curves(
    axis: Axes, series: Mapping[str, Mapping[int, float]], x_label: str, y_label: str
) -> None:
    """Lines over two logarithmic axes, whose numbers are written out."""
    marks = "osD^v*"
    for (name, points), mark, shade in zip(series.items(), marks, PALETTE, strict=False):
        axis.plot(*zip(*points.items(), strict=True), marker=mark, color=shade, label=name)
        for place in (min(points), max(points)):
            spot = (place, points[place])
            axis.annotate(number(spot[1]), spot, (0, 6), textcoords="offset points", fontsize=8)
    ticks = sorted({x for points in series.values() for x in points})
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    _write_out(axis)
    axis.set_xticks(ticks, [_power(x) for x in ticks], fontsize=8)
    axis.set_xlabel(x_label, fontsize=9)
    axis.set_ylabel(y_label, fontsize=9)
    axis.grid(visible=True, which="both", alpha=0.25, linewidth=0.5)
    axis.legend(fontsize=8, frameon=False)
    _plain(axis)


def cells(panels: Mapping[str, Mapping[str, float]], reference: str | None) -> list[list[str]]:
    """The rows of a table that says the same as `bars`."""
    return [
        [name, *(_label(values[name], values.get(reference or "")) for values in panels.values())]
        for name in next(iter(panels.values()))
    ]


def _label(value: float, base: float | None) -> str:
    if not value:
        return "-"
    return f"{number(value)} ({ratio(value / base)})" if base else number(value)


def _write_beside(axis: Axes, text: str, end: tuple[float, float]) -> None:
    """On white, since the line of the reference may pass."""
    axis.annotate(
        text,
        end,
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )


def _write_out(axis: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.0f}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.1, y=0.1)


def _power(x: int) -> str:
    return f"{x / 1024:g}k" if x >= 1024 else f"{x:g}"


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
