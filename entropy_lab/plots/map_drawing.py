"""Drawing a map over a plane, with marked points, and a list of named values with their intervals."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from entropy_lab.plots.drawing import limits
from entropy_lab.plots.page import Cell
from entropy_lab.plots.series import FloatArray
from entropy_lab.plots.style import FONT_SIZE, GREY
from entropy_lab.plots.text import inches

FALLS, RISES = "#d55e00", "#0072b2"
"""Colours of values below and above 0."""
_COLOURS: Final = LinearSegmentedColormap.from_list("falls-rises", [FALLS, "#ffffff", RISES])
_HALO: Final = [withStroke(linewidth=1.6, foreground="white")]
_ARROW: Final = 0.18
"""Length of an arrow as a share of the axis."""
_N_CONTOURS: Final = 7


def draw_map(cell: Cell) -> None:
    """Draw the rows of a panel of kind ``"map"``: colours, contours with their values, names of points, an arrow.

    The colours are white at 0. Contours are drawn above 0 on both axes: on them the values may jump.

    Parameters
    ----------
    cell
        A cell of `entropy_lab.plots.page.sheet`.

    Examples
    --------
    >>> from entropy_lab.plots.collect import collect
    >>> from entropy_lab.plots.page import sheet
    >>> from entropy_lab.plots.panels import Panel
    >>> from entropy_lab.plots.series import RunTables
    >>> from entropy_lab.table import Table
    >>> panel = Panel("a", "A", "mine", ("x",), "y", "y", "1", kind="map", z="z")
    >>> x, y = (side.ravel() for side in np.meshgrid([0.0, 1.0], [0.0, 1.0]))
    >>> rows = pl.DataFrame({"x": x, "y": y, "z": x + y, "label": "", "kind": ""})
    >>> run = RunTables("GRPO", "grpo", {}, 0, 8, {"mine": Table("mine", rows)})
    >>> _, cells = sheet(collect("mine", [panel], [run]))
    >>> draw_map(cells[0])
    >>> cells[0].axes.collections[0].get_array().data
    array([[0., 1.],
           [1., 2.]])
    """
    axes = cell.axes
    plane, marks = cell.rows.filter(pl.col("name").is_null()), cell.rows.filter(pl.col("name").is_not_null())
    wide = plane.pivot("x", index="y", values="z", sort_columns=False).sort("y")
    x, y = np.array([float(name) for name in wide.columns[1:]]), wide["y"].to_numpy()
    z = wide.drop("y").to_numpy()
    most = float(np.nanmax(np.abs(z))) or 1.0
    axes.pcolormesh(x, y, z, cmap=_COLOURS, vmin=-most, vmax=most, shading="nearest", rasterized=True, gid="map")
    inner = np.ix_(y > 0, x > 0)
    if min(z[inner].shape, default=0) > 1 and np.ptp(z[inner]) > 0:
        lines = axes.contour(x[x > 0], y[y > 0], z[inner], _N_CONTOURS, colors=GREY, linewidths=0.5)
        axes.clabel(lines, fontsize=FONT_SIZE - 1, fmt=lambda value: f"{value:.3g}".replace("-", "−"))
    for row in marks.iter_rows(named=True):
        axes.add_line(Line2D([row["x"]], [row["y"]], marker="o", markersize=3.2, color="black", zorder=4, gid="mark"))
        _annotate(cell, row["name"], row["x"], row["y"])
    if cell.panel["arrow"]:
        start, along = np.array(cell.panel["arrow"][:2]), np.array(cell.panel["arrow"][2:])
        end = start + along * _ARROW * max(np.ptp(x), np.ptp(y))
        style = {"arrowstyle": "->", "linewidth": 1.1, "shrinkA": 3}
        axes.annotate("", tuple(end), tuple(start), arrowprops=style, zorder=4)


def _annotate(cell: Cell, name: str, x: float, y: float) -> None:
    """Write a name above its point: from it to the right where there is room, else centred or to the left."""
    (left, right), wide = cell.axes.get_xlim(), cell.axes.get_position().width * cell.axes.figure.get_figwidth()  # type: ignore[union-attr]
    room, needed = (right - x) / (right - left) * wide, inches(name) + 0.08
    side, shift = ("left", 4) if room > needed else ("center", 0) if room > needed / 2 else ("right", -4)
    cell.axes.annotate(
        name, (x, y), xytext=(shift, 3), textcoords="offset points", ha=side, path_effects=_HALO, zorder=5
    )


def draw_ranking(cell: Cell) -> None:
    """Draw the rows of a panel of kind ``"ranking"``: a point and a bar for each name, from the top down.

    Parameters
    ----------
    cell
        A cell of `entropy_lab.plots.page.sheet`; its axes make room for the names.

    Examples
    --------
    >>> from entropy_lab.plots.collect import collect
    >>> from entropy_lab.plots.page import sheet
    >>> from entropy_lab.plots.panels import Panel
    >>> from entropy_lab.plots.series import RunTables
    >>> from entropy_lab.table import Table
    >>> panel = Panel("b", "B", "mine", ("label",), "y", "y", "1", kind="ranking")
    >>> rows = pl.DataFrame({"label": ["A", "B"], "kind": "", "y": [1.0, 2.0]})
    >>> run = RunTables("GRPO", "grpo", {}, 0, 8, {"mine": Table("mine", rows)})
    >>> _, cells = sheet(collect("mine", [panel], [run]))
    >>> draw_ranking(cells[0])
    >>> [label.get_text() for label in cells[0].axes.get_yticklabels()]
    ['B', 'A']
    """
    axes, rows = cell.axes, cell.rows.sort("x")
    position, value, low, high = (rows[name].cast(pl.Float64).to_numpy() for name in ("x", "y", "low", "high"))
    for at, left, right in zip(position, low, high, strict=True):
        axes.add_line(Line2D([left, right], [at, at], color=GREY, linewidth=1.0, gid="interval"))
    axes.add_line(Line2D(value, position, linestyle="None", marker="o", markersize=3.2, color="black", gid="values"))
    axes.set_ylim(len(position) - 0.4, -0.6)
    axes.set_yticks(position, rows["name"].to_list())
    axes.set_xlabel(cell.panel["y_label"])
    axes.set_ylabel("")
    shown: FloatArray = np.concatenate([value, low, high, [0.0] if cell.panel["zero_line"] else []])
    axes.set_xlim(*limits(shown[np.isfinite(shown)], cell.panel["bounds"], 0.04))
    if cell.panel["zero_line"]:
        axes.axvline(0, color="#a6a6a6", linewidth=0.6, zorder=1, gid="reference")
    _make_room(cell, max(inches(name) for name in rows["name"]))


def _make_room(cell: Cell, wide: float) -> None:
    """Move the left side of the axes, so that names of that width (inches) stand within the panel."""
    box, width = cell.axes.get_position(), cell.axes.figure.get_figwidth()  # type: ignore[union-attr]  # no subfigure
    room = max(wide - 0.4, 0.0) / width
    cell.axes.set_position((box.x0 + room, box.y0, box.width - room, box.height))
