"""How many times faster Pie was, workload by workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.numbers import ratio
from benchmarks.pictures import BLUE, ORANGE, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = (SKY, BLUE)
_HEIGHT = 0.38


def draw(ratios: dict[str, dict[tuple[int, int], float]], figure: Figure) -> None:
    cases = list(next(iter(ratios.values())))
    widths = sorted({width for width, _ in cases})
    figure.set_size_inches(5 * len(widths) + 2, 0.5 * len(ratios) + 1.6)
    axes = figure.subplots(1, len(widths), sharey=True, sharex=True, squeeze=False)[0]
    for axis, width in zip(axes, widths, strict=True):
        _panel(axis, ratios, width, sorted({delay_ms for _, delay_ms in cases}))
    axes[0].invert_yaxis()


def _panel(
    axis: Axes, ratios: dict[str, dict[tuple[int, int], float]], width: int, delays: list[int]
) -> None:
    for number, (delay_ms, shade) in enumerate(zip(delays, SHADES, strict=False)):
        values = [cases[width, delay_ms] for cases in ratios.values()]
        places = [place + (number - 0.5) * _HEIGHT for place in range(len(ratios))]
        axis.barh(places, values, _HEIGHT, color=shade, label=f"round trip +{delay_ms} ms")
        for place, value in zip(places, values, strict=True):
            axis.text(value, place, f" {ratio(value)}", va="center", fontsize=8)
    axis.axvline(1, color=ORANGE, linewidth=1.5)
    axis.set_yticks(range(len(ratios)), list(ratios))
    axis.set_title("one agent" if width == 1 else f"{width} agents at once", fontsize=10)
    axis.set_xlabel("times as fast as a client of vLLM (orange: as fast)", fontsize=9)
    axis.margins(x=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
