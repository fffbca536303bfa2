"""The page of a figure: panels at explicit places, titles, one legend, and a footnote that says what is shown.

Positions are computed in inches instead of by a layout engine, which would draw every figure several times.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

from entropy_lab.plots.panels import panels_of
from entropy_lab.plots.style import FONT_SIZE, GREY, WIDTH, Look, Series, looks, styled_line
from entropy_lab.plots.text import LINE, fitted, footnote, inches
from entropy_lab.table import Table

_LEFT, _RIGHT, _TITLE, _BELOW = 0.52, 0.09, 0.25, 0.36
"""Inches around the axes of a panel: for y labels, free, for the title, for x labels."""
_LARGER: Final = (FONT_SIZE + 0.5) / FONT_SIZE
"""Size of titles in that of other text."""
_BOLD: Final = [Stroke(linewidth=0.35, foreground="black"), Normal()]
"""Outlines for letters: a second font would cost 0.1 s in every PDF."""


@dataclass(frozen=True)
class Cell:
    """One panel on the page.

    Parameters
    ----------
    axes
        Where it is drawn.
    panel
        The panel's description from the table's metadata: see `entropy_lab.plots.panels.Drawn`.
    rows
        The panel's rows of the tidy table.
    looks
        Series -> look.
    """

    axes: Axes
    panel: Mapping[str, Any]
    rows: pl.DataFrame
    looks: Mapping[str, Look]


def sheet(table: Table, *, columns: int = 2, height: float = 1.9, legend: bool = True) -> tuple[Figure, list[Cell]]:
    """Lay out a figure: empty axes with titles and axis labels, one legend, and a footnote that says what is shown.

    Parameters
    ----------
    table
        As `entropy_lab.plots.collect.collect` makes it.
    columns
        Panels side by side; fewer when there are fewer panels.
    height
        Inches of a row of panels.
    legend
        False where the panels name what they show.

    Returns
    -------
    tuple
        The figure, 6.75 inches wide (3.375 for one panel), and its cells in the order of the panels. A table without
        panels gives no cell, and a figure that says why.

    Raises
    ------
    ParameterError
        The table is not that of a figure.

    Examples
    --------
    >>> from entropy_lab.plots.collect import collect
    >>> from entropy_lab.plots.panels import Panel
    >>> curve = Panel("a", "Correct", "", ("accuracy",), "positive", "advantage", "1", estimators=("grpo",))
    >>> figure, cells = sheet(collect("mine", [curve], []))
    >>> [float(inches) for inches in figure.get_size_inches().round(2)], cells[0].axes.get_ylabel()
    ([3.38, 2.27], 'advantage (1)')
    """
    panels = panels_of(table)
    columns = max(1, min(columns, len(panels)))
    width = WIDTH if columns > 1 else WIDTH / 2
    places, tops, depth = _places(panels, columns, height)
    found = looks([series_of(rows) for rows in table.frame.partition_by("panel", "model", maintain_order=True)])
    entries = _entries(found) if legend else {}
    widths = [inches(label) + 0.5 for label in entries]
    n_columns = _legend_columns(widths, width - 0.1)
    strip = math.ceil(len(entries) / n_columns) * LINE
    free = _free_place(places, columns, width, height, len(entries) * LINE, max(widths, default=0))
    notes = footnote(table, width)
    total = depth + (strip + 0.06 if entries and not free else 0) + len(notes) * LINE + 0.06
    figure = Figure(figsize=(width, total))
    cells = []
    titles = _titles(panels, width / columns - _LEFT)
    for panel, title, (column, top) in zip(panels, titles, places, strict=True):
        place = (column * width / columns, top, width / columns, height)
        cells.append(_cell(figure, table, panel, title, found, place))
    for model, top in tops:
        figure.text(0.08 / width, 1 - (top + 0.15) / total, model, size=FONT_SIZE + 1, path_effects=_BOLD)
    if entries:
        x, y = free or (0.08, depth + 0.02)
        lines = {label for panel in panels for label in panel["baselines"]}
        _legend(figure, entries, (x / width, 1 - y / total), 1 if free else n_columns, lines)
    figure.text(0.08 / width, 0.05 / total, "\n".join(notes), color=GREY, linespacing=1.3, va="bottom")
    return figure, cells


def _places(
    panels: Sequence[Mapping[str, Any]], columns: int, height: float
) -> tuple[list[tuple[int, float]], list[tuple[str, float]], float]:
    """Column and top (inches from the page's top) of each panel, of each model's heading, and the depth of all."""
    headed = _headed(panels)
    places: list[tuple[int, float]] = []
    headings: list[tuple[str, float]] = []
    top, column, model = 0.0, 0, ""
    for panel in panels:
        if headed and panel["model"] != model:
            if places:
                top, column = top + height, 0
            model = panel["model"]
            headings.append((model, top))
            top += 0.2
        elif column == columns:
            top, column = top + height, 0
        places.append((column, top))
        column += 1
    return places, headings, top + height if places else 0.1


def _headed(panels: Sequence[Mapping[str, Any]]) -> bool:
    """Whether models have rows of panels, so that their names stand above these; else they are the panels' titles."""
    counts = Counter(panel["model"] for panel in panels if panel["model"])
    return len(counts) > 1 and max(counts.values()) > 1


def _titles(panels: Sequence[Mapping[str, Any]], room: float) -> list[str]:
    """Title of each panel, with its model where models have no heading; the model alone where both are too long."""
    models = {panel["model"] for panel in panels} - {""}
    named = len(models) > 1 and not _headed(panels)
    both = [f"{panel['title']} · {panel['model']}" if named and panel["model"] else panel["title"] for panel in panels]
    if named and any(inches(title) * _LARGER > room for title in both):
        both = [panel["model"] or panel["title"] for panel in panels]
    return [fitted(title, room / _LARGER) for title in both]


def _free_place(
    places: Sequence[tuple[int, float]], columns: int, width: float, height: float, tall: float, wide: float
) -> tuple[float, float] | None:
    """Top left corner for a legend in the place after the last panel, if there is one and the legend fits."""
    if not places or places[-1][0] == columns - 1 or tall > height - 0.3 or wide > width / columns - 0.2:
        return None
    column, top = places[-1]
    return (column + 1) * width / columns + 0.25, top + _TITLE - 0.05


def series_of(rows: pl.DataFrame) -> list[Series]:
    """Give label, method and parameters of each series in some rows of a figure's table.

    Parameters
    ----------
    rows
        Columns series, method and params (JSON).

    Returns
    -------
    list of tuple
        In the order of the rows.

    Examples
    --------
    >>> rows = pl.DataFrame({"series": ["A", "A"], "method": ["grpo"] * 2, "params": ['{"ddof": 1}'] * 2})
    >>> series_of(rows)
    [('A', 'grpo', {'ddof': 1})]
    """
    found = rows.select("series", "method", "params").unique("series", keep="first", maintain_order=True).iter_rows()
    return [(label, method, json.loads(params)) for label, method, params in found]


def _cell(
    figure: Figure,
    table: Table,
    panel: Mapping[str, Any],
    title: str,
    found: Mapping[str, Look],
    place: tuple[float, float, float, float],
) -> Cell:
    left, top, wide, high = place
    width, total = figure.get_size_inches()
    inner = (wide - _LEFT - _RIGHT, high - _TITLE - _BELOW)
    bottom = total - top - high + _BELOW
    axes = figure.add_axes(
        ((left + _LEFT) / width, bottom / total, inner[0] / width, inner[1] / total), label=panel["key"]
    )
    rows = table.frame.filter((pl.col("panel") == panel["key"]) & (pl.col("model") == panel["model"]))
    heading = 1 - (top + _TITLE - 0.08) / total
    figure.text((left + 0.08) / width, heading, panel["key"], size=FONT_SIZE + 1, path_effects=_BOLD)
    figure.text((left + _LEFT) / width, heading, title, size=FONT_SIZE + 0.5)
    axes.set_xlabel(panel["x_label"])
    axes.set_ylabel(panel["y_label"])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=panel["x"] in ("step", "epoch"))
    )
    for axis in (axes.xaxis, axes.yaxis):
        plain = ScalarFormatter(useOffset=False)
        plain.set_scientific(False)
        axis.set_major_formatter(plain)
    if panel["percent"]:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.6g}".replace("-", "−")))
    return Cell(axes, panel, rows, found)


def _legend_columns(widths: Sequence[float], room: float) -> int:
    """Most columns that fit, when entries fill them downwards."""
    for columns in range(len(widths), 1, -1):
        if sum(max(part) for part in np.array_split(widths, columns)) <= room:
            return columns
    return 1


def _entries(found: Mapping[str, Look]) -> dict[str, Look]:
    """One legend entry per look: a formula and the runs of its method share theirs."""
    labels: dict[Look, list[str]] = {}
    for label, look in found.items():
        same = labels.setdefault(look, [])
        # "grpo" adds nothing to "GRPO", nor "REINFORCE" to "REINFORCE (2r − 1)".
        if not any(_begins(other, label) for other in same):
            same[:] = [other for other in same if not _begins(label, other)] + [label]
    return {" / ".join(same): look for look, same in labels.items()}


def _begins(text: str, words: str) -> bool:
    return f"{text} ".casefold().startswith(f"{words} ".casefold())


def _legend(
    figure: Figure, found: Mapping[str, Look], corner: tuple[float, float], n_columns: int, lines: Collection[str]
) -> None:
    """Draw the legend; baselines are ``lines`` without a marker."""
    width, _ = figure.get_size_inches()
    texts = {label: fitted(label, width - 0.6) for label in found}
    handles = [styled_line([], [], look, texts[label], marker=label not in lines) for label, look in found.items()]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=corner,
        ncols=n_columns,
        borderpad=0,
        borderaxespad=0,
        handlelength=2.6,
        columnspacing=1.2,
        labelspacing=0.25,
        handletextpad=0.6,
    )
