"""Panels of curves and points: seeds averaged, smoothed where the panel says so, with notes on what is shown."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Final

import polars as pl

from entropy_lab.plots.panels import Pages, Panel, spelled
from entropy_lab.plots.points import (
    Sources,
    avg_at_k,
    between,
    common_decoding,
    decoded,
    mean_over,
    points_of_run,
    values_in_common,
)
from entropy_lab.plots.series import CONFIDENCE, INTERVAL, LEAST_SEEDS, is_base, over_seeds

_MOST_BANDS: Final = 5
"""Panels of more curves show intervals at the curves' ends only."""


def add_comparison(pages: Pages, panel: Panel, model: str, x: str, sources: Sources) -> None:
    """Add the panel of one x and y; one per benchmark where the panel says so.

    Parameters
    ----------
    pages
        Gets the panels, or the reasons why there are none.
    panel
        Of kind ``"lines"`` or ``"points"``.
    model
        Row of the panel.
    x
        Column for the x axis.
    sources
        The runs of that model that have x and y, at least one.

    Examples
    --------
    >>> from entropy_lab.plots.series import RunTables
    >>> from entropy_lab.table import Table
    >>> panel = Panel("a", "Entropy", "entropy", ("step",), "entropy", "entropy", "nats/token")
    >>> table = Table.of("entropy", {"step": [0, 1], "entropy": [0.4, 0.3]})
    >>> pages, run = Pages(), RunTables("GRPO", "grpo", {}, 0, 8, {"entropy": table})
    >>> add_comparison(pages, panel, "", "step", [(run, table.frame)])
    >>> pages.table("mine").frame["y"].to_list()
    [0.4, 0.3]
    """
    how = ""
    if panel.decoding:
        name = common_decoding(sources)
        kept = decoded(sources, name)
        for run, _ in sources:
            if not any(run is other for other, _ in kept):
                pages.lack(panel, model, f"no {name} answers", run)
        sources, how = kept, avg_at_k(name, kept)
    if not panel.one_per:
        title = f"{panel.title}, {how}" if how else panel.title
        _add_curves(pages, panel, (panel.key, title, model), x, sources)
        return
    values = list(dict.fromkeys(value for _, frame in sources for value in frame[panel.one_per].unique().sort()))
    for number, value in enumerate(values, start=1):
        parts = [(run, frame.filter(pl.col(panel.one_per) == value)) for run, frame in sources]
        names = (f"{panel.key}{number}" if len(values) > 1 else panel.key, str(value), model)
        _add_curves(pages, panel, names, x, parts, [how] if how else [])


def _add_curves(
    pages: Pages, panel: Panel, names: tuple[str, str, str], x: str, sources: Sources, told: Sequence[str] = ()
) -> None:
    notes = list(told)
    if panel.average_over:
        common = values_in_common(panel.average_over, sources)
        if not common:
            pages.lack(panel, names[-1], f"the runs have no {panel.average_over} in common")
            return
        sources = [(run, mean_over(frame, panel.average_over, common, x, panel.y)) for run, frame in sources]
        notes += [f"mean over {len(common)} {panel.average_over}s"] if len(common) > 1 else []
    base = _baselines(sources)
    longest = max(frame[x].n_unique() for _, frame in sources)
    window = panel.window if x == "step" and longest >= 2 * panel.window else 1
    rows = _as_lines(over_seeds(_points(panel, x, sources, window)), base, panel)
    curves = rows.filter(~pl.col("series").is_in(base))
    if curves["y"].is_null().all():
        pages.lack(panel, names[-1], f"no value of {panel.y} by {x} that most seeds share")
        return
    for label in dict.fromkeys(run.label for run, _ in sources if run.label not in rows["series"]):
        pages.lack_series(names[0], names[-1], f"no value of {panel.y} by {x}", label)
    if (curves["y"].is_null() & (curves["n_seeds"] > 0)).any():
        notes.append("points that half of the seeds lack are left out")
    ends = panel.kind == "lines" and curves["x"].n_unique() > 1 and curves["series"].n_unique() > _MOST_BANDS
    if window > 1:
        notes.append(f"running mean over {window} steps" + ("" if ends else ", pale = each step"))
    notes += [*filled_note(panel, sources), *band_notes(curves, panel, sources, ends=ends)]
    pages.add(panel, names, x, with_methods(rows, panel, sources), notes, ends=ends, baselines=tuple(base))


def _baselines(sources: Sources) -> list[str]:
    """Series of the base policy, where there are others."""
    base = list(dict.fromkeys(run.label for run, _ in sources if is_base(run)))
    return base if any(not is_base(run) for run, _ in sources) else []


def _as_lines(rows: pl.DataFrame, base: Sequence[str], panel: Panel) -> pl.DataFrame:
    """Keep one point of each baseline, without an interval; intervals keep to what y can be."""
    is_base = pl.col("series").is_in(base)
    last = pl.col("x") == pl.col("x").filter(pl.col("y").is_not_null()).max().over("series")
    ends = [pl.when(~is_base).then(pl.col(name).clip(*panel.bounds)).alias(name) for name in ("low", "high")]
    return rows.filter(~is_base | last).with_columns(ends)


def _points(panel: Panel, x: str, sources: Sources, window: int = 1) -> pl.DataFrame:
    columns = (x, panel.y, panel.low, panel.high)
    parts = [
        points_of_run(frame, columns, window).with_columns(series=pl.lit(run.label), run=pl.lit(number, pl.Int64))
        for number, (run, frame) in enumerate(sources)
    ]
    return pl.concat(parts)


def filled_note(panel: Panel, sources: Sources) -> list[str]:
    """Fill the fields of a panel's note from the metadata of the runs' tables.

    Parameters
    ----------
    panel
        Its ``note`` has the fields, in braces.
    sources
        The panel's runs.

    Returns
    -------
    list of str
        One note per distinct value, none where unknown.

    Examples
    --------
    >>> panel = Panel("a", "Entropy", "entropy", ("step",), "entropy", "entropy", "nats", note="{n_boot} resamples")
    >>> from entropy_lab.plots.series import RunTables
    >>> from entropy_lab.table import Table
    >>> table = Table.of("entropy", {"step": [0], "entropy": [0.4]}, n_boot=1000)
    >>> filled_note(panel, [(RunTables("GRPO", "grpo", {}, 0, 8, {"entropy": table}), table.frame)])
    ['1000 resamples']
    """
    fields = [name for _, name, _, _ in string.Formatter().parse(panel.note) if name]
    found = [run.tables[panel.analysis].metadata for run, _ in sources]
    known = [metadata for metadata in found if all(metadata.get(name) is not None for name in fields)]
    return list(dict.fromkeys(panel.note.format(**metadata) for metadata in known)) if panel.note else []


def band_notes(rows: pl.DataFrame, panel: Panel, sources: Sources, *, ends: bool = False) -> list[str]:
    """Say what the bands (bars, numbers after ±, brackets) of a panel are.

    Parameters
    ----------
    rows
        As `entropy_lab.plots.series.over_seeds` gives.
    panel
        The panel.
    sources
        Its runs.
    ends
        True where intervals are drawn at the curves' ends only.

    Returns
    -------
    list of str
        One note for series of three seeds or more, one for those of two, one for each kind of interval of single runs.

    Examples
    --------
    >>> panel = Panel("a", "Entropy", "entropy", ("step",), "entropy", "entropy", "nats/token")
    >>> numbers = {"x": [0.0, 1.0], "y": [0.4, 0.3], "low": [0.3, 0.2], "high": [0.5, 0.4]}
    >>> rows = pl.DataFrame({"series": ["A", "A"], **numbers, "n_seeds": [3, 3], "n_runs": [3, 3]})
    >>> band_notes(rows, panel, [])
    ["band = 95 % interval of the mean over 3 seeds (Student's t)"]
    """
    noun = {"lines": "band", "stacked": "band", "points": "bar", "ranking": "bar", "scores": "in brackets"}[panel.kind]
    if ends:
        noun = "bars at the right, in the legend's order"
    elif noun == "band" and rows["x"].n_unique() == 1:
        noun = "bar"
    shown = rows.filter(pl.col("low").is_not_null() & pl.col("y").is_not_null())
    many, two, one = (shown.filter(part) for part in (_MANY, _TWO, _ONE))
    levels = {run.tables[panel.analysis].metadata.get("confidence") for run, _ in sources if run.label in one["series"]}
    notes = []
    if len(many):
        seeds = between(many["n_seeds"].to_list())
        sign = "±" if panel.kind == "scores" else noun
        notes.append(f"{sign} = {100 * CONFIDENCE:g} % interval of the mean over {seeds} seeds (Student's t)")
    if len(two):
        notes.append(f"{noun} = range (min–max) over 2 seeds{' where there are two' if notes else ''}")
    named = sorted(f"{100 * level:g} % {panel.interval}" if level else panel.interval for level in levels)
    return notes + [f"{noun} = {name}{' where there is one seed' if notes else ''}" for name in named]


_ONE, _TWO, _MANY = pl.col("n_runs") == 1, pl.col("n_runs") == 2, pl.col("n_runs") >= LEAST_SEEDS


def with_methods(rows: pl.DataFrame, panel: Panel, sources: Sources) -> pl.DataFrame:
    """Add method, parameters (JSON) and the meaning of low and high to rows; series in the order of the runs.

    Parameters
    ----------
    rows
        As `entropy_lab.plots.series.over_seeds` gives.
    panel
        Whose ``interval`` single runs have.
    sources
        The runs of the rows' series.

    Returns
    -------
    polars.DataFrame
        With columns method, params and band; a run that is in no row adds none.

    Examples
    --------
    >>> from entropy_lab.plots.series import RunTables
    >>> panel = Panel("a", "Entropy", "entropy", ("step",), "entropy", "entropy", "nats/token")
    >>> rows = pl.DataFrame({"series": ["A"], "low": [0.1], "n_runs": [4]})
    >>> with_methods(rows, panel, [(RunTables("A", "grpo", {}, 0, 8, {}), rows)]).select("method", "band").row(0)
    ('grpo', '95 % interval over seeds')
    """
    first = {run.label: (run.label, run.method, spelled(run.params)) for run, _ in reversed(sources)}
    known = pl.DataFrame([first[label] for label in reversed(first)], ["series", "method", "params"], orient="row")
    joined = known.join(rows, on="series", maintain_order="left_right")
    meaning = pl.when(_ONE).then(pl.lit(panel.interval)).when(_TWO).then(pl.lit("range over seeds"))
    return joined.with_columns(band=pl.when(pl.col("low").is_not_null()).then(meaning.otherwise(pl.lit(INTERVAL))))
