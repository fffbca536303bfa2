"""Drawing one panel: lines with bands, points with bars, and limits that fit them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from entropy_lab.plots.page import Cell
from entropy_lab.plots.series import FloatArray
from entropy_lab.plots.style import Look, styled_line

_FEW: Final = 25
"""Up to so many points, each has a marker; on longer lines and in crowded panels, about four have."""


def draw_panel(cell: Cell) -> None:
    """Draw the rows of a panel and fit the axes to them.

    Lines have a band between low and high, and the values before smoothing as a pale line. In crowded panels (see
    ``ends`` of `entropy_lab.plots.panels.Drawn`) they have instead of the band a bar beside their last point, and no
    pale line. Baselines are horizontal lines. Panels of ``"points"``, and those where every series has one x only, have
    markers with bars, moved aside so that none hides another.

    Parameters
    ----------
    cell
        A cell of `entropy_lab.plots.page.sheet`; null and NaN break a line, a panel without values stays empty.

    Examples
    --------
    >>> from entropy_lab.plots.collect import collect
    >>> from entropy_lab.plots.page import sheet
    >>> from entropy_lab.plots.panels import Panel
    >>> curve = Panel("a", "Correct", "", ("accuracy",), "positive", "advantage", "1", estimators=("grpo",))
    >>> _, cells = sheet(collect("mine", [curve], []))
    >>> draw_panel(cells[0])
    >>> [line.get_label() for line in cells[0].axes.lines]
    ['GRPO']
    """
    parts = {rows["series"][0]: rows for rows in cell.rows.partition_by("series", maintain_order=True)}
    base = [label for label in cell.panel["baselines"] if label in parts]
    labels = [label for label in cell.looks if label in parts and label not in base]
    alone = cell.rows.filter(~pl.col("series").is_in(base))["x"].n_unique() < 2
    if cell.panel["zero_line"]:
        cell.axes.axhline(0, color="#a6a6a6", linewidth=0.6, zorder=1, gid="reference")
    for label in base:
        _baseline(cell.axes, parts[label]["y"][0], cell.looks[label], label)
    for index, label in enumerate(labels):
        columns = tuple(parts[label][name].to_numpy() for name in ("x", "y", "low", "high", "raw"))
        look = cell.looks[label]
        if cell.panel["kind"] == "points" or alone:
            apart = min(6 if alone else 2.5, (90 if alone else 8) / max(len(labels) - 1, 1))
            shift = (index - (len(labels) - 1) / 2) * apart
            _points(cell.axes, columns[:4], look, label, shift, joined=not alone)
        elif cell.panel["ends"]:
            _curve(cell.axes, columns, look, label, index / len(labels), crowded=True)
            _end(cell.axes, columns[:4], look, label, _ASIDE * (index + 1.5))
        else:
            _curve(cell.axes, columns, look, label, index / len(labels))
    _fit(cell, base, _ASIDE * (len(labels) + 1) / 72 if cell.panel["ends"] else 0)


_ASIDE: Final = 2.8
"""Points on the page between bars at the ends of curves."""


def _baseline(axes: Axes, y: float, look: Look, label: str) -> None:
    line = styled_line([0, 1], [y, y], look, label, marker=False)
    line.set(transform=axes.get_yaxis_transform(), gid="baseline", linewidth=1.0, zorder=1.5)
    axes.add_line(line)


def _curve(
    axes: Axes, columns: Sequence[FloatArray], look: Look, label: str, phase: float, *, crowded: bool = False
) -> None:
    x, y, low, high, raw = columns
    if np.isfinite(low).any() and not crowded:
        axes.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0, zorder=2, gid=label)
    if np.isfinite(raw).any() and not crowded:
        axes.add_line(Line2D(x, raw, color=look.color, linewidth=0.5, alpha=0.35, zorder=2.5, gid="raw", label=label))
    curve = styled_line(x, y, look, label, marker=True)
    n = int(np.isfinite(y).sum())
    if n > _FEW or crowded:
        # Markers of different curves at different x, so that none hides another.
        every = max(len(y) / 4, 1)
        curve.set_markevery(sorted({min(int((k + phase) * every), len(y) - 1) for k in range(4)}))
    curve.set_zorder(3)
    axes.add_line(curve)


def _end(axes: Axes, columns: Sequence[FloatArray], look: Look, label: str, shift: float) -> None:
    """Draw the interval of a curve's last point beside it; the shift is in points on the page."""
    x, y, low, high = columns
    last = np.flatnonzero(np.isfinite(y))[-1:]
    if not np.isfinite(low[last]).any():
        return
    aside = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    (at,) = last
    ends = [[(x[at], low[at]), (x[at], high[at])]]
    bar = LineCollection(ends, colors=look.color, linewidths=1.2, transform=aside, zorder=3, gid=label)
    axes.add_collection(bar, autolim=False)
    mean = styled_line(x[last], y[last], look, label, marker=True, joined=False)
    mean.set(transform=aside, markersize=2.6, zorder=3.5, gid="end")
    axes.add_line(mean)


def _points(axes: Axes, columns: Sequence[FloatArray], look: Look, label: str, shift: float, *, joined: bool) -> None:
    x, y, low, high = columns
    # The shift is in points on the page, so that the data stay what the table says.
    aside = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    barred = np.isfinite(low)
    if barred.any():
        ends = np.stack([np.column_stack([x, low]), np.column_stack([x, high])], axis=1)[barred]
        bars = LineCollection(list(ends), colors=look.color, linewidths=0.9, transform=aside, zorder=3, gid=label)
        axes.add_collection(bars, autolim=False)
    curve = styled_line(x, y, look, label, marker=True, joined=joined)
    curve.set(transform=aside, linewidth=0.8, zorder=3.5)
    axes.add_line(curve)


def _fit(cell: Cell, base: Sequence[str], aside: float) -> None:
    """Set the limits: all values with a margin, but not past what y can be; 0 is shown where there is a zero line.

    ``aside`` is the room, in inches, that bars beside the curves' ends take.
    """
    shown = cell.rows.filter(pl.col("y").is_not_null())
    x = shown.filter(~pl.col("series").is_in(base))["x"]
    if cell.panel["ends"]:  # intervals of last points only
        ends = shown.sort("x").group_by("series").last()
        values = pl.concat([shown["y"], ends["low"], ends["high"]]).drop_nulls().to_numpy()
    else:
        values = pl.concat([shown[name] for name in ("y", "low", "high", "raw")]).drop_nulls().to_numpy()
    if not len(values):
        return
    if cell.panel["zero_line"]:
        values = np.append(values, 0.0)
    left, right = limits(x.to_numpy(), (None, None), 0.03)
    wide = cell.axes.get_position().width * cell.axes.figure.get_figwidth()  # type: ignore[union-attr]  # no subfigure
    cell.axes.set_xlim(left, right + (right - left) * aside / max(wide - aside, aside))
    if x.n_unique() == 1:
        cell.axes.set_xticks([x[0]])
    elif aside:  # no tick where there are bars only
        cell.axes.set_xticks([tick for tick in cell.axes.get_xticks() if left <= tick <= right])
    cell.axes.set_ylim(*limits(values, cell.panel["bounds"], 0.06))


def limits(values: FloatArray, bounds: Sequence[float | None], margin: float) -> tuple[float, float]:
    """Give the ends of an axis that shows all values.

    Parameters
    ----------
    values
        At least one.
    bounds
        What values cannot pass; the axis passes them by a hair, or a line on a bound would be cut in half.
    margin
        Room beyond the values, as a share of their span.

    Returns
    -------
    tuple of float
        Lower and upper end, never equal.

    Examples
    --------
    >>> limits(np.array([0.0, 0.5]), (0, None), 0.1)
    (-0.01, 0.55)
    >>> limits(np.array([0.0]), (0, 1), 0.1)  # one value has room, but no axis shows a share below 0
    (-0.002, 0.05)
    """
    low, high = float(values.min()), float(values.max())
    span = high - low or max(abs(high) * 0.2, 0.1)
    room = margin * span if high > low else span / 2
    floor = -math.inf if bounds[0] is None else min(bounds[0], low)
    ceiling = math.inf if bounds[1] is None else max(bounds[1], high)
    return max(low - room, floor - 0.02 * span), min(high + room, ceiling + 0.02 * span)
