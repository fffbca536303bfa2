"""From runs to the numbers of a figure: one tidy table of every point that is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import polars as pl

from entropy_lab import advantages
from entropy_lab.errors import ParameterError
from entropy_lab.plots.curves import add_comparison
from entropy_lab.plots.maps import add_map, add_ranking
from entropy_lab.plots.panels import Pages, Panel, spelled, tidy
from entropy_lab.plots.points import Sources
from entropy_lab.plots.score_panels import add_published, add_scores
from entropy_lab.plots.series import RunTables, family, is_base
from entropy_lab.plots.stacks import add_stacks
from entropy_lab.table import Table


def collect(name: str, panels: Sequence[Panel], runs: Sequence[RunTables]) -> Table:
    """Make the tidy table of a figure: one row per point drawn.

    Runs of one model with the same label are its seeds: y is their mean, low and high the 95 % interval of that mean,
    of two seeds their range, see `entropy_lab.plots.series.over_seeds`. A single run keeps the interval of its
    analysis. Several rows of one run at one x are averaged and then have no interval. A panel whose analysis no run has
    is dropped, and the reason noted.

    Parameters
    ----------
    name
        The figure.
    panels
        Its panels, in order.
    runs
        The runs' analyses; none is needed for panels of ``estimators``.

    Returns
    -------
    Table
        Columns panel, title, model, series, method, params (JSON), benchmark, x, y, low, high, raw (before smoothing;
        null without), n_seeds (null for curves of formulas and published numbers), band (what low and high are), for
        scores k and best, published (the source of a number that was not measured here, else null), z (value of a map)
        and name (of a marked point). Metadata:
        ``panels`` (a `entropy_lab.plots.panels.Drawn` each), ``missing`` (panel, model, series, reason), and for
        scores ``steps`` (step of each seed), ``beside`` (series -> published series of the same method) and
        ``agreement`` (see `entropy_lab.plots.agreement.rank_agreement`).

    Raises
    ------
    ParameterError
        Two runs have the same model, label and seed, or one label stands for two methods.

    Examples
    --------
    >>> curve = Panel("a", "Correct", "", ("accuracy",), "positive", "advantage", "1", estimators=("grpo",))
    >>> collect("mine", [curve], []).frame.select("series", "x", "y").row(4)
    ('GRPO', 0.5, 1.0)
    >>> entropy = Panel("b", "Entropy", "entropy", ("step",), "entropy", "entropy", "nats/token")
    >>> collect("mine", [entropy], []).metadata["missing"][0]["reason"]
    'no entropy table'
    """
    _check(runs)
    pages = Pages()
    for index, model in enumerate(dict.fromkeys(run.model for run in runs) or [""]):
        here = [run for run in runs if run.model == model]
        for panel in panels:
            if not panel.estimators:
                _measure(pages, panel, model, here)
            elif index == 0:
                _evaluate(pages, panel, runs)
    for panel in panels:
        if panel.published:
            add_published(pages, panel, runs)
    return pages.table(name)


def _check(runs: Sequence[RunTables]) -> None:
    """Refuse labels that stand for more than one thing."""
    seeds = Counter((run.model, run.label, run.seed) for run in runs)
    methods: dict[tuple[str, str], str] = {}
    for run in runs:
        count, method = seeds[run.model, run.label, run.seed], f"{run.method} {spelled(run.params)}"
        if count > 1 and run.seed is not None:
            wrong = f"label {run.label!r} has seed {run.seed} {count} times"
            raise ParameterError("runs", wrong, "each seed once", "give one of them another label or setting")
        known = methods.setdefault((run.model, run.label), method)
        if known != method:
            wrong = f"label {run.label!r} stands for {known} and {method}"
            raise ParameterError("runs", wrong, "one method per label", "give one of them another label")


def _evaluate(pages: Pages, panel: Panel, runs: Sequence[RunTables]) -> None:
    """Add a panel of formulas, at every accuracy that the runs' groups can have."""
    sizes = Counter(run.group_size for run in runs if run.group_size)
    size = sizes.most_common(1)[0][0] if sizes else 8
    curves = []
    for name in panel.estimators:
        estimator = advantages.get(name)
        values = advantages.fingerprint(estimator, group_size=size)
        rows = pl.DataFrame({"x": values.accuracy, "y": getattr(values, panel.y)})
        curves.append(tidy(rows, series=estimator.label, method=name, params=spelled(estimator.params)))
    pages.add(panel, (panel.key, panel.title, ""), panel.x[0], pl.concat(curves), [f"groups of {size} rollouts"])


def _measure(pages: Pages, panel: Panel, model: str, runs: Sequence[RunTables]) -> None:
    """Add a panel of runs; or several, one per benchmark or way of decoding."""
    wanted = _wanted(panel, runs)
    frames = [(run, run.tables[panel.analysis].frame) for run in wanted if panel.analysis in run.tables]
    if not frames:
        pages.lack(panel, model, f"no {panel.analysis} table")
        return
    x = next((x for x in panel.x if any(x in frame.columns for _, frame in frames)), panel.x[0])
    sources: Sources = []
    for run in wanted:
        if panel.analysis not in run.tables:
            pages.lack(panel, model, f"no {panel.analysis} table", run)
            continue
        frame = run.tables[panel.analysis].frame
        if panel.inside and x in frame.columns:
            frame = frame.filter(pl.col(x).is_between(*panel.inside, closed="none"))
        if panel.only and panel.only[0] in frame.columns:
            column, key = panel.only
            frame = frame.filter(pl.col(column).eq_missing(run.tables[panel.analysis].metadata.get(key)))
        if panel.sparse and panel.y in frame.columns:
            frame = frame.filter(pl.col(panel.y).cast(pl.Float64).is_finite())
        if {x, panel.y} <= set(frame.columns) and frame.drop_nulls(x)[panel.y].cast(pl.Float64).is_finite().any():
            sources.append((run, frame))
        else:
            pages.lack(panel, model, f"no value of {panel.y} by {x}", run)
    if sources:
        adders = {"scores": add_scores, "stacked": add_stacks, "map": add_map, "ranking": add_ranking}
        adders.get(panel.kind, add_comparison)(pages, panel, model, x, sources)


def _wanted(panel: Panel, runs: Sequence[RunTables]) -> list[RunTables]:
    """Choose the runs of a panel: those of its methods when one of them can be drawn, else all.

    The base policy has no curve: it is in panels with a baseline and in scores, or alone.
    """
    if panel.kind == "scores":
        return list(runs)
    trained = [run for run in runs if not is_base(run)]
    if not any(panel.analysis in run.tables for run in trained):
        return list(runs)
    chosen = [run for run in trained if family(run.label, run.method, run.params) in panel.methods]
    wanted = chosen if any(panel.analysis in run.tables for run in chosen) else trained
    base = [run for run in runs if is_base(run) and panel.analysis in run.tables]
    return [*base, *wanted] if panel.baseline else wanted
