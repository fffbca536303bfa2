"""Panels of one method: a map of values over a plane with marked points, and named values one below the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from entropy_lab.plots.curves import band_notes, filled_note, with_methods
from entropy_lab.plots.panels import Pages, Panel, spelled
from entropy_lab.plots.points import Sources
from entropy_lab.plots.series import over_seeds

NAME: Final = "label"
"""Column of a marked point's name; empty on the map itself."""
OWN: Final = "this run"
_KIND, _RECORDED = "kind", "recorded"


def add_map(pages: Pages, panel: Panel, model: str, x: str, sources: Sources) -> None:
    """Add a map: values z over the plane of x and y, points with a name, and an arrow.

    Rows with an empty ``label`` are the map's, the others are points; those without a place are left out. Points at one
    place share a mark. The arrow is ``direction`` of the table's metadata: x, y, and ``d_`` of both.

    Parameters
    ----------
    pages
        Gets the panel, or the reason why there is none.
    panel
        Of kind ``"map"``.
    model
        Row of the panel.
    x
        Column for the x axis.
    sources
        Runs of one method; the values of several seeds are averaged, and the arrow is that of the first.

    Examples
    --------
    >>> from entropy_lab.plots.series import RunTables
    >>> from entropy_lab.table import Table
    >>> panel = Panel("a", "A", "mine", ("x",), "y", "y", "1", kind="map", z="z")
    >>> rows = pl.DataFrame({"label": ["", "B"], "kind": "", "x": [0.0, 0.0], "y": [1.0, 1.0], "z": [3.0, 4.0]})
    >>> pages, run = Pages(), RunTables("GRPO", "grpo", {}, 0, 8, {"mine": Table("mine", rows)})
    >>> add_map(pages, panel, "", "x", [(run, rows)])
    >>> pages.table("mine").frame.select("name", "x", "y", "z").rows()
    [(None, 0.0, 1.0, 3.0), ('B', 0.0, 1.0, 4.0)]
    """
    if not _single(pages, panel, model, sources):
        return
    rows = pl.concat([frame.select(x, panel.y, panel.z, _name()) for _, frame in sources]).drop_nulls([x, panel.y])
    cells = rows.group_by(x, panel.y, "name", maintain_order=True).agg(pl.col(panel.z).mean())
    named, plane = cells.filter(pl.col("name") != ""), cells.filter(pl.col("name") == "")
    marks = named.group_by(x, panel.y, maintain_order=True).agg(
        pl.col("name").unique(maintain_order=True).str.join(" = "), pl.col(panel.z).mean()
    )
    run = sources[0][0]
    drawn = pl.concat([plane.with_columns(name=pl.lit(None, pl.String)), marks.select(plane.columns)]).select(
        pl.col(x).alias("x"), pl.col(panel.y).alias("y"), pl.col(panel.z).alias("z"), "name", **_series(sources)
    )
    arrow = _arrow(run.tables[panel.analysis].metadata.get("direction"), x, panel.y)
    pages.add(panel, (panel.key, panel.title, model), x, drawn, filled_note(panel, sources), arrow=arrow)


def add_ranking(pages: Pages, panel: Panel, model: str, x: str, sources: Sources) -> None:
    """Add named values with their intervals, from the greatest down.

    Parameters
    ----------
    pages, model, sources
        As for `add_map`.
    panel
        Of kind ``"ranking"``.
    x
        Column of the names; rows without one are left out.

    Examples
    --------
    >>> from entropy_lab.plots.series import RunTables
    >>> from entropy_lab.table import Table
    >>> panel = Panel("b", "B", "mine", ("label",), "y", "y", "1", kind="ranking")
    >>> rows = pl.DataFrame({"label": ["", "A", "B"], "kind": "", "y": [0.0, 1.0, 2.0]})
    >>> pages, run = Pages(), RunTables("GRPO", "grpo", {}, 0, 8, {"mine": Table("mine", rows)})
    >>> add_ranking(pages, panel, "", "label", [(run, rows)])
    >>> pages.table("mine").frame.select("x", "name", "y").rows()
    [(0.0, 'B', 2.0), (1.0, 'A', 1.0)]
    """
    if not _single(pages, panel, model, sources):
        return
    parts = []
    for number, (_, frame) in enumerate(sources):
        bounds = {"low": panel.low, "high": panel.high, "raw": ""}
        ends = {
            key: pl.col(name) if name in frame.columns else pl.lit(None, pl.Float64) for key, name in bounds.items()
        }
        one = frame.select(_name().alias("series"), pl.col(panel.y).alias("y"), **ends, x=pl.lit(0.0))
        parts.append(one.filter(pl.col("series") != "").with_columns(run=pl.lit(number, pl.Int64)))
    rows = over_seeds(pl.concat(parts)).drop_nulls("y").sort("y", "series", descending=[True, False])
    if rows.is_empty():
        pages.lack(panel, model, f"no value of {panel.y}")
        return
    label = sources[0][0].label
    named = rows.with_columns(name="series", series=pl.lit(label), x=pl.int_range(pl.len()).cast(pl.Float64))
    notes = [*filled_note(panel, sources), *band_notes(named, panel, sources)]
    pages.add(panel, (panel.key, panel.title, model), x, with_methods(named, panel, sources), notes)


def _single(pages: Pages, panel: Panel, model: str, sources: Sources) -> bool:
    if len({run.label for run, _ in sources}) == 1:
        return True
    pages.lack(panel, model, "drawn for one method only")
    return False


def _name() -> pl.Expr:
    """Name of each row's point; the run's own is called so."""
    return pl.when(pl.col(_KIND) == _RECORDED).then(pl.lit(OWN)).otherwise(pl.col(NAME)).alias("name")


def _series(sources: Sources) -> dict[str, pl.Expr]:
    run = sources[0][0]
    texts = {"series": run.label, "method": run.method, "params": spelled(run.params)}
    return {key: pl.lit(text) for key, text in texts.items()}


def _arrow(direction: Mapping[str, Any] | None, x: str, y: str) -> tuple[float, ...]:
    if not direction:
        return ()
    return tuple(float(direction[name]) for name in (x, y, f"d_{x}", f"d_{y}"))
