"""The table and the picture say the same."""

from __future__ import annotations

from matplotlib.figure import Figure

from benchmarks import pictures

PANELS = {
    "1 row": {"vLLM": 50.0, "Pie, programs": 75.0, "other": 0.0},
    "8 rows": {"vLLM": 1200.0, "Pie, programs": 900.0, "other": 12.34},
}


def test_cells_have_the_value_and_the_ratio_to_the_reference() -> None:
    """Three digits are enough; what was not measured is a dash."""
    assert [
        ["vLLM", "50.0 (1.00x)", "1,200 (1.00x)"],
        ["Pie, programs", "75.0 (1.50x)", "900 (0.75x)"],
        ["other", "-", "12.3 (0.01x)"],
    ] == pictures.cells(PANELS, "vLLM")


def test_without_a_reference_there_are_no_ratios() -> None:
    """A quick run has no peer to be compared with."""
    assert ["50.0", "1,200"] == pictures.cells(PANELS, None)[0][1:]


def test_bars_are_labelled_as_the_cells_are() -> None:
    """Every panel begins at 0 and shows what its column of the table says."""
    figure = Figure()
    pictures.bars(figure, PANELS, "tokens/s", "vLLM")
    cells = pictures.cells(PANELS, "vLLM")

    for column, axis in enumerate(figure.axes, 1):
        assert [row[column] for row in cells] == [text.get_text().strip() for text in axis.texts]
        assert 0 == axis.get_xlim()[0]


def test_the_reference_and_pie_have_colours_of_their_own() -> None:
    """Who is compared with whom is seen before anything is read."""
    shades = [pictures.colour(name, "vLLM") for name in ("vLLM", "Pie, programs", "other")]

    assert [pictures.ORANGE, pictures.BLUE, pictures.GREY] == shades


def test_curves_show_every_point_that_was_measured() -> None:
    """Both axes are logarithmic; what was measured is written out below."""
    figure = Figure()
    axis = figure.subplots()
    pictures.curves(axis, {"decode": {512: 1.0, 2048: 4.0}}, "tokens", "us")

    assert ["512", "2k"] == [label.get_text() for label in axis.get_xticklabels()]
    assert ("log", "log") == (axis.get_xscale(), axis.get_yscale())
