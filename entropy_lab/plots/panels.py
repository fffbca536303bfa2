"""From runs to the numbers of a figure: panels declared as data, and one tidy table of every point that is drawn."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import polars as pl

from entropy_lab import advantages
from entropy_lab.errors import ParameterError
from entropy_lab.plots.points import (
    Sources,
    avg_at_k,
    between,
    common_decoding,
    decoded,
    mean_over,
    numbers,
    points_of_run,
    values_in_common,
)
from entropy_lab.plots.scores import chosen_steps, scores
from entropy_lab.plots.series import RunTables, family, over_seeds
from entropy_lab.table import Table

X_AXES: Final[Mapping[str, str]] = {
    "step": "training step (policy updates)",
    "epoch": "epoch (passes over the prompts)",
    "accuracy": "group accuracy p (fraction)",
}
"""Axis labels of the columns that analyses have for x."""

_SCHEMA: Final = {
    **dict.fromkeys(("panel", "title", "model", "series", "method", "params", "benchmark"), pl.String),
    **dict.fromkeys(("x", "y", "low", "high", "raw"), pl.Float64),
    **{"n_seeds": pl.Int64, "band": pl.String, "k": pl.Int64, "best": pl.Boolean},
}


@dataclass(frozen=True)
class Panel:
    """One panel of a figure, as data.

    Parameters
    ----------
    key
        Letter of the panel.
    title
        A few words.
    analysis
        Analysis whose tables it draws; with ``estimators``, only a name.
    x
        Columns for the x axis: the first that the tables have.
    y
        Column for the y axis.
    y_label
        Label of the y axis without the unit.
    unit
        Unit of y; ``"%"`` shows fractions as per cent.
    low, high
        Columns of the interval that is drawn when a series has one run.
    interval
        What that interval is, such as ``"bootstrap interval over prompts"``.
    methods
        Methods of the panel, as `entropy_lab.plots.series.family` names them. They are chosen when there is a run of at
        least one of them; otherwise every run is drawn.
    estimators
        Advantage estimators whose ``fingerprint`` is drawn instead of runs: ``y`` is one of its arrays.
    decoding
        True for tables with a ``greedy`` column: greedy answers where every run has them, else sampled ones.
    average_over
        Column whose values are averaged, those that all runs have (``"benchmark"``).
    one_per
        Column of which every value gets a panel of its own (``"benchmark"``).
    window
        Steps of a centred running mean; 1 for none. Runs shorter than two windows are not smoothed.
    note
        Text for the foot of the figure; fields in braces are filled from the tables' metadata.
    kind
        ``"lines"``, ``"points"`` with error bars, or ``"scores"`` for a method x benchmark table.
    zero_line
        True for a horizontal line at 0.
    bounds
        Values that y cannot pass; the axis does not either.
    inside
        Only points whose x lies strictly between these two are drawn; None for all.
    at
        For ``"scores"``: the rule for the validation step, see `entropy_lab.plots.scores.chosen_steps`.

    Examples
    --------
    >>> Panel("a", "Policy entropy", "entropy", ("step",), "entropy", "policy entropy", "nats/token").window
    1
    """

    key: str
    title: str
    analysis: str
    x: tuple[str, ...]
    y: str
    y_label: str
    unit: str
    low: str = ""
    high: str = ""
    interval: str = "bootstrap interval over prompts"
    methods: tuple[str, ...] = ()
    estimators: tuple[str, ...] = ()
    decoding: bool = False
    average_over: str = ""
    one_per: str = ""
    window: int = 1
    note: str = ""
    kind: Literal["lines", "points", "scores"] = "lines"
    zero_line: bool = False
    bounds: tuple[float | None, float | None] = (None, None)
    inside: tuple[float, float] | None = None
    at: str = ""


@dataclass(frozen=True)
class Drawn:
    """What a figure is told about one panel beside its rows; stands in the table's metadata as a mapping.

    Parameters
    ----------
    key, title, model
        Letter, title and row of the panel.
    x
        Column that x comes from.
    x_label, y_label
        Axis labels with units.
    kind, zero_line, bounds, percent
        As in `Panel`.
    notes
        What a reader must know: meaning of the band, smoothing, decoding.
    """

    key: str
    title: str
    model: str
    x: str
    x_label: str
    y_label: str
    kind: str
    zero_line: bool
    bounds: tuple[float | None, float | None]
    percent: bool
    notes: tuple[str, ...] = ()


@dataclass
class _Pages:
    """Panels made so far, and what could not be made."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def lack(self, panel: Panel, model: str, reason: str, run: RunTables | None = None) -> None:
        seed = "" if run is None or run.seed is None else f", seed {run.seed}"
        series = f"{run.label}{seed}" if run else ""
        self.missing.append({"panel": panel.key, "model": model, "series": series, "reason": reason})

    def add(self, panel: Panel, names: tuple[str, str, str], x: str, rows: pl.DataFrame, notes: Sequence[str]) -> None:
        key, title, model = names
        self.frames.append(_tidy(rows, panel=key, title=title, model=model))
        y_label, percent = f"{panel.y_label} ({panel.unit})", panel.unit == "%"
        told = (key, title, model, x, X_AXES.get(x, x), y_label, panel.kind, panel.zero_line, panel.bounds, percent)
        self.drawn.append(Drawn(*told, tuple(notes)))


def collect(name: str, panels: Sequence[Panel], runs: Sequence[RunTables]) -> Table:
    """Make the tidy table of a figure: one row per point drawn.

    Runs of one model with the same label are its seeds: y is their mean, low and high their range, see
    `entropy_lab.plots.series.over_seeds`. A single run keeps the interval of its analysis. Several rows of one run at
    one x are averaged and then have no interval. A panel whose analysis no run has is dropped, and the reason noted.

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
        null without), n_seeds (null for curves of formulas), band (what low and high are), and for scores k and best.
        Metadata: ``panels`` (a `Drawn` each), ``missing`` (panel, model, series, reason), ``steps`` (for scores: panel
        -> series -> step of each seed).

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
    pages = _Pages()
    for index, model in enumerate(dict.fromkeys(run.model for run in runs) or [""]):
        here = [run for run in runs if run.model == model]
        for panel in panels:
            if not panel.estimators:
                _measure(pages, panel, model, here)
            elif index == 0:
                _evaluate(pages, panel, runs)
    frame = pl.concat(pages.frames) if pages.frames else pl.DataFrame(schema=_SCHEMA)
    metadata = {"panels": [asdict(drawn) for drawn in pages.drawn], "missing": pages.missing, "steps": pages.steps}
    return Table(name, frame, json.loads(json.dumps(metadata)))


def _check(runs: Sequence[RunTables]) -> None:
    """Refuse labels that stand for more than one thing."""
    seeds = Counter((run.model, run.label, run.seed) for run in runs)
    methods: dict[tuple[str, str], str] = {}
    for run in runs:
        count, spelled = seeds[run.model, run.label, run.seed], f"{run.method} {_json(run.params)}"
        if count > 1 and run.seed is not None:
            wrong = f"label {run.label!r} has seed {run.seed} {count} times"
            raise ParameterError("runs", wrong, "each seed once", "give one of them another label")
        known = methods.setdefault((run.model, run.label), spelled)
        if known != spelled:
            wrong = f"label {run.label!r} stands for {known} and {spelled}"
            raise ParameterError("runs", wrong, "one method per label", "give one of them another label")


def _evaluate(pages: _Pages, panel: Panel, runs: Sequence[RunTables]) -> None:
    """Add a panel of formulas, at every accuracy that the runs' groups can have."""
    sizes = Counter(run.group_size for run in runs if run.group_size)
    size = sizes.most_common(1)[0][0] if sizes else 8
    curves = []
    for name in panel.estimators:
        estimator = advantages.get(name)
        values = advantages.fingerprint(estimator, group_size=size)
        rows = pl.DataFrame({"x": values.accuracy, "y": getattr(values, panel.y)})
        curves.append(_tidy(rows, series=estimator.label, method=name, params=_json(estimator.params)))
    pages.add(panel, (panel.key, panel.title, ""), panel.x[0], pl.concat(curves), [f"groups of {size} rollouts"])


def _measure(pages: _Pages, panel: Panel, model: str, runs: Sequence[RunTables]) -> None:
    """Add a panel of runs; or several, one per benchmark or way of decoding."""
    having = [run for run in runs if panel.analysis in run.tables]
    wanted = [run for run in having if family(run.label, run.method, run.params) in panel.methods] or having
    if not wanted:
        pages.lack(panel, model, f"no {panel.analysis} table")
        return
    for run in runs:
        chosen = not panel.methods or family(run.label, run.method, run.params) in panel.methods or wanted is having
        if chosen and panel.analysis not in run.tables:
            pages.lack(panel, model, f"no {panel.analysis} table", run)
    frames = [(run, run.tables[panel.analysis].frame) for run in wanted]
    x = next((x for x in panel.x if any(x in frame.columns for _, frame in frames)), panel.x[0])
    sources: Sources = []
    for run, frame in frames:
        if panel.inside and x in frame.columns:
            frame = frame.filter(pl.col(x).is_between(*panel.inside, closed="none"))
        if {x, panel.y} <= set(frame.columns) and frame[panel.y].cast(pl.Float64).is_finite().any():
            sources.append((run, frame))
        else:
            pages.lack(panel, model, f"no value of {panel.y} by {x}", run)
    if sources:
        (_score if panel.kind == "scores" else _compare)(pages, panel, model, x, sources)


def _compare(pages: _Pages, panel: Panel, model: str, x: str, sources: Sources) -> None:
    """Add the panel of one x and y; one per benchmark where the panel says so."""
    suffix = ""
    if panel.decoding:
        name = common_decoding(sources)
        kept = decoded(sources, name)
        for run, _ in sources:
            if not any(run is other for other, _ in kept):
                pages.lack(panel, model, f"no {name} answers", run)
        sources, suffix = kept, f", {avg_at_k(name, kept)}"
    if not panel.one_per:
        _add_curves(pages, panel, (panel.key, panel.title + suffix, model), x, sources)
        return
    values = list(dict.fromkeys(value for _, frame in sources for value in frame[panel.one_per].unique().sort()))
    for number, value in enumerate(values, start=1):
        parts = [(run, frame.filter(pl.col(panel.one_per) == value)) for run, frame in sources]
        names = (f"{panel.key}{number}" if len(values) > 1 else panel.key, f"{value}{suffix}", model)
        _add_curves(pages, panel, names, x, parts)


def _add_curves(pages: _Pages, panel: Panel, names: tuple[str, str, str], x: str, sources: Sources) -> None:
    notes: list[str] = []
    if panel.average_over:
        common = values_in_common(panel.average_over, sources)
        if not common:
            pages.lack(panel, names[-1], f"the runs have no {panel.average_over} in common")
            return
        sources = [(run, mean_over(frame, panel.average_over, common, x, panel.y)) for run, frame in sources]
        notes += [f"mean over {len(common)} {panel.average_over}s"] if len(common) > 1 else []
    longest = max(frame[x].n_unique() for _, frame in sources)
    window = panel.window if x == "step" and longest >= 2 * panel.window else 1
    rows = over_seeds(_points(panel, x, sources, window))
    if rows["y"].is_null().all():
        pages.lack(panel, names[-1], f"no value of {panel.y} by {x} that most seeds share")
        return
    for label in dict.fromkeys(run.label for run, _ in sources if run.label not in rows["series"]):
        reason = f"no value of {panel.y} by {x}"
        pages.missing.append({"panel": names[0], "model": names[-1], "series": label, "reason": reason})
    if (rows["y"].is_null() & (rows["n_seeds"] > 0)).any():
        notes.append("points that half of the seeds lack are left out")
    if window > 1:
        notes.append(f"running mean over {window} steps, pale = each step")
    notes += [*_filled(panel, sources), *_bands(rows, panel, sources)]
    pages.add(panel, names, x, _with_methods(rows, panel, sources), notes)


def _points(panel: Panel, x: str, sources: Sources, window: int = 1) -> pl.DataFrame:
    columns = (x, panel.y, panel.low, panel.high)
    parts = [
        points_of_run(frame, columns, window).with_columns(series=pl.lit(run.label), run=pl.lit(number, pl.Int64))
        for number, (run, frame) in enumerate(sources)
    ]
    return pl.concat(parts)


def _filled(panel: Panel, sources: Sources) -> list[str]:
    """Fill a note's fields from the metadata of the runs' tables; one note per distinct value, none where unknown."""
    fields = [name for _, name, _, _ in string.Formatter().parse(panel.note) if name]
    found = [run.tables[panel.analysis].metadata for run, _ in sources]
    known = [metadata for metadata in found if all(metadata.get(name) is not None for name in fields)]
    return list(dict.fromkeys(panel.note.format(**metadata) for metadata in known)) if panel.note else []


def _bands(rows: pl.DataFrame, panel: Panel, sources: Sources) -> list[str]:
    """Say what the bands (bars, brackets) of a panel are."""
    noun = {"lines": "band", "points": "bar", "scores": "in brackets"}[panel.kind]
    if noun == "band" and rows["x"].n_unique() == 1:
        noun = "bar"
    shown = rows.filter(pl.col("low").is_not_null() & pl.col("y").is_not_null())
    seeds = shown.filter(pl.col("n_runs") > 1)["n_seeds"]
    single = set(shown.filter(pl.col("n_runs") == 1)["series"])
    levels = {run.tables[panel.analysis].metadata.get("confidence") for run, _ in sources if run.label in single}
    named = sorted(f"{100 * level:g} % {panel.interval}" if level else panel.interval for level in levels)
    several = [f"{noun} = range (min–max) over {between(seeds.to_list())} seeds"] if len(seeds) else []
    return several + [f"{noun} = {name}{' where there is one seed' if several else ''}" for name in named]


def _with_methods(rows: pl.DataFrame, panel: Panel, sources: Sources) -> pl.DataFrame:
    """Add method, params and the meaning of the band; series in the order of the runs."""
    first = {run.label: (run.label, run.method, _json(run.params)) for run, _ in reversed(sources)}
    known = pl.DataFrame([first[label] for label in reversed(first)], ["series", "method", "params"], orient="row")
    several, shown = pl.col("n_runs") > 1, pl.col("low").is_not_null()
    band = pl.when(several & shown).then(pl.lit("range over seeds")).when(shown).then(pl.lit(panel.interval))
    return known.join(rows, on="series", maintain_order="left_right").with_columns(band=band)


def _tidy(rows: pl.DataFrame, **texts: str) -> pl.DataFrame:
    """Bring rows to the columns and types of a tidy table; those it lacks are null, NaN becomes null."""
    columns = {**{name: pl.col(name) for name in rows.columns}, **{key: pl.lit(text) for key, text in texts.items()}}
    found = [columns.get(name, pl.lit(None)).cast(dtype).alias(name) for name, dtype in _SCHEMA.items()]
    return rows.select(found).with_columns(pl.col(pl.Float64).fill_nan(None))


def _json(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True, default=str)


def _score(pages: _Pages, panel: Panel, model: str, x: str, sources: Sources) -> None:
    """Add a method x benchmark table for each way of decoding."""
    for name in ("sampled", "greedy", "undeclared"):
        kept = decoded(sources, name)
        if not kept:
            continue
        columns = {"x": x, "y": panel.y, "low": panel.low, "high": panel.high}
        parts = [
            numbers(frame, columns).with_columns(frame["benchmark", "k"], series=pl.lit(run.label), run=pl.lit(number))
            for number, (run, frame) in enumerate(kept)
        ]
        rows = pl.concat(parts).with_columns(raw=pl.lit(None, pl.Float64)).sort("benchmark", maintain_order=True)
        steps = chosen_steps(rows, panel.at)
        for number, step in steps.items():
            run = kept[number][0]
            pages.steps.append({"panel": name, "model": model, "series": run.label, "seed": run.seed, "step": step})
        table = scores(rows, steps)
        at = [f"{panel.at} validation, step {between(list(steps.values()))}"] if steps else []
        at += ["bold = its range lies above all others"] if table["best"].any() else []
        names = (name, f"{panel.title}, {name}", model)
        pages.add(panel, names, x, _with_methods(table, panel, kept), at + _bands(table, panel, kept))
