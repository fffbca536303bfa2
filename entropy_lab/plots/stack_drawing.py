"""Drawing a panel of parts that add up: areas by step, bars by accuracy, and a line for what was measured."""

from __future__ import annotations

import numpy as np
import polars as pl

from entropy_lab.plots.drawing import limits
from entropy_lab.plots.page import Cell
from entropy_lab.plots.series import FloatArray
from entropy_lab.plots.style import styled_line

_BAR = 0.8
"""Width of bars in the distance of their neighbours."""


def draw_stack(cell: Cell) -> None:
    """Draw the rows of a panel of kind ``"stacked"`` and fit the axes to them.

    Positive parts stand on each other above 0, negative ones hang below it. Over steps they are areas, else bars. The
    line has a band between low and high.

    Parameters
    ----------
    cell
        A cell of `entropy_lab.plots.page.sheet`; a panel without values stays empty.

    Examples
    --------
    >>> from entropy_lab.plots.collect import collect
    >>> from entropy_lab.plots.page import sheet
    >>> from entropy_lab.plots.panels import Panel
    >>> from entropy_lab.plots.series import RunTables
    >>> from entropy_lab.table import Table
    >>> panel = Panel("a", "A", "mine", ("step",), "y", "change", "nats", kind="stacked", parts="part", whole="all")
    >>> rows = pl.DataFrame({"step": [0, 0, 0], "part": ["up", "down", "all"], "y": [2.0, -1.0, 1.0]})
    >>> run = RunTables("GRPO", "grpo", {}, 0, 8, {"mine": Table("mine", rows)})
    >>> _, cells = sheet(collect("mine", [panel], [run]))
    >>> draw_stack(cells[0])
    >>> [round(float(end), 2) for end in cells[0].axes.get_ylim()]
    [-1.18, 2.18]
    """
    axes, line = cell.axes, cell.panel["line"]
    axes.axhline(0, color="#a6a6a6", linewidth=0.6, zorder=1, gid="reference")
    parts = [label for label in cell.looks if label != line]
    wide = cell.rows.filter(pl.col("series").is_in(parts)).pivot("series", index="x", values="y").sort("x")
    x, above, below = wide["x"].to_numpy(), np.zeros(wide.height), np.zeros(wide.height)
    for label in (name for name in parts if name in wide.columns):
        y = wide[label].fill_null(0.0).to_numpy()
        foot = np.where(y >= 0, above, below)
        _area(cell, x, foot, foot + y, label)
        above, below = above + np.maximum(y, 0), below + np.minimum(y, 0)
    rows = cell.rows.filter(pl.col("series") == line)
    extent = [above, below]
    if len(rows):
        extent += [_line(cell, rows)]
        x = np.append(x, rows["x"].to_numpy())
    if len(x):
        room = 0.5 * _gap(x) if cell.panel["x"] != "step" else 0.0
        axes.set_xlim(*limits(np.append(x - room, x + room), (None, None), 0.03))
        axes.set_ylim(*limits(np.concatenate([[0.0], *extent]), cell.panel["bounds"], 0.06))


def _area(cell: Cell, x: FloatArray, foot: FloatArray, top: FloatArray, label: str) -> None:
    color = cell.looks[label].color
    if cell.panel["x"] == "step":
        cell.axes.fill_between(x, foot, top, step="mid", color=color, alpha=0.75, linewidth=0, zorder=2, gid=label)
    else:
        width = _BAR * _gap(x)
        cell.axes.bar(x, top - foot, width, bottom=foot, color=color, alpha=0.75, linewidth=0, zorder=2, gid=label)


def _gap(x: FloatArray) -> float:
    return float(np.diff(np.unique(x)).min()) if len(np.unique(x)) > 1 else 1.0


def _line(cell: Cell, rows: pl.DataFrame) -> FloatArray:
    """Draw the line with its band; give all values drawn."""
    label = cell.panel["line"]
    look = cell.looks[label]
    x, y, low, high = (rows[name].to_numpy() for name in ("x", "y", "low", "high"))
    if np.isfinite(low).any():
        cell.axes.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0, zorder=2.5, gid=label)
    cell.axes.add_line(styled_line(x, y, look, label, marker=False))
    values: FloatArray = np.concatenate([y, low, high])
    shown: FloatArray = values[np.isfinite(values)]
    return shown
