"""Panels of parts that add up, stacked, with a line for what was measured: one panel for each method."""

from __future__ import annotations

from typing import Final

import polars as pl

from entropy_lab.plots.curves import band_notes, filled_note
from entropy_lab.plots.panels import Pages, Panel
from entropy_lab.plots.points import Sources
from entropy_lab.plots.series import over_seeds, running_mean

LINE: Final = "measured"
"""Series of the line."""


def add_stacks(pages: Pages, panel: Panel, model: str, x: str, sources: Sources) -> None:
    """Add a panel for each method: its parts at every x, and the line.

    Parameters
    ----------
    pages
        Gets the panels, or the reasons why there are none.
    panel
        Of kind ``"stacked"``.
    model
        Row of the panel.
    x
        Column for the x axis; rows of one part with the same x are added up.
    sources
        The runs of that model that have x and y, at least one; seeds of a method are averaged.

    Examples
    --------
    >>> from entropy_lab.plots.series import RunTables
    >>> from entropy_lab.table import Table
    >>> panel = Panel("a", "A", "mine", ("step",), "y", "y", "nats", kind="stacked", parts="channel", whole="all")
    >>> rows = {"step": [0, 0, 0, 1, 1], "channel": ["up", "down", "all", "up", "all"], "y": [2.0, -1.0, 1.0, 3.0, 3.0]}
    >>> pages, table = Pages(), Table("mine", pl.DataFrame(rows))
    >>> add_stacks(pages, panel, "", "step", [(RunTables("GRPO", "grpo", {}, 0, 8, {"mine": table}), table.frame)])
    >>> pages.table("mine").frame.select("series", "x", "y").rows()
    [('down channel', 0.0, -1.0), ('down channel', 1.0, 0.0), ('up channel', 0.0, 2.0), ('up channel', 1.0, 3.0)]
    """
    labels = list(dict.fromkeys(run.label for run, _ in sources))
    if panel.alone and len(labels) > 1:
        pages.lack(panel, model, "drawn for one method only")
        return
    for number, label in enumerate(labels, start=1):
        runs = [(run, frame) for run, frame in sources if run.label == label]
        parts = [_of_run(panel, x, frame).with_columns(run=pl.lit(seed)) for seed, (_, frame) in enumerate(runs)]
        rows = over_seeds(pl.concat(parts))
        names = (panel.key, panel.title) if len(labels) == 1 else (f"{panel.key}{number}", label)
        ends = [pl.when(pl.col("series") == LINE).then(pl.col(end)).alias(end) for end in ("low", "high")]
        drawn = rows.with_columns(*ends, method="series", params=pl.lit("{}"))
        pages.add(panel, (*names, model), x, drawn, _notes(panel, x, rows, runs), line=LINE if panel.line else "")


def _of_run(panel: Panel, x: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Give the parts and the line of one run at each x, in the columns that `over_seeds` takes."""
    whole = pl.col(panel.parts) == panel.whole
    totals = frame.filter(whole).sort(x)
    cells = frame.filter(~whole, pl.col(panel.y).is_not_null(), pl.col(x).is_not_null())
    # A part without rows at an x is 0 there, or the stack would lean on its neighbours.
    wide = cells.pivot(panel.parts, index=x, values=panel.y, aggregate_function="sum").sort(x).fill_null(0.0)
    names = sorted(name for name in wide.columns if name != x)
    lines = [_shaped(panel, wide.select(x, name), f"{name} {panel.parts}") for name in names]
    if panel.running or x != "step":
        # Steps that have a prediction stand for those that have none.
        share = totals[panel.y].count() / max(totals.height, 1)
        lines = [line.with_columns(pl.col("y") / share) for line in lines]
    if panel.line:
        measured = totals.select(x, panel.line).drop_nulls()
        lines.append(_shaped(panel, measured, LINE))
    return pl.concat(lines)


def _shaped(panel: Panel, points: pl.DataFrame, series: str) -> pl.DataFrame:
    """Make a running sum, a running mean or neither of points (x, y)."""
    smoothed = _is_smoothed(panel, points.columns[0], points.height)
    points = points.rename(dict(zip(points.columns, ("x", "y"), strict=True))).cast(pl.Float64)
    if panel.running:
        points = points.with_columns(pl.col("y").cum_sum())
    elif smoothed:
        smooth = running_mean(points["x"].to_numpy(), points["y"].to_numpy(), panel.window)
        points = points.with_columns(y=pl.Series(smooth))
    nothing = dict.fromkeys(("low", "high", "raw"), pl.lit(None, pl.Float64))
    return points.select(pl.lit(series).alias("series"), "x", "y", **nothing)


def _is_smoothed(panel: Panel, x: str, n_steps: int) -> bool:
    return x == "step" and panel.window > 1 and not panel.running and n_steps >= 2 * panel.window


def _notes(panel: Panel, x: str, rows: pl.DataFrame, sources: Sources) -> list[str]:
    line = rows.filter(pl.col("series") == LINE)
    notes = [f"running mean over {panel.window} steps"] if _is_smoothed(panel, x, line.height) else []
    return [*notes, *filled_note(panel, sources), *band_notes(line, panel, sources)]
