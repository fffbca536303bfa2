"""Panels of a figure as data: as a recipe declares them, and as they are handed to whoever draws."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import polars as pl

from entropy_lab.errors import ParameterError
from entropy_lab.plots.series import RunTables
from entropy_lab.table import Table

X_AXES: Final[Mapping[str, str]] = {
    "step": "training step (updates)",
    "epoch": "epoch (passes)",
    "accuracy": "group accuracy p (fraction)",
    "beta_pos": "exponent β+ (dimensionless)",
    "position": "position of the token (from 1)",
}
"""Axis labels of the columns that analyses have for x."""

_SCHEMA: Final = {
    **dict.fromkeys(("panel", "title", "model", "series", "method", "params", "benchmark"), pl.String),
    **dict.fromkeys(("x", "y", "low", "high", "raw"), pl.Float64),
    **{"n_seeds": pl.Int64, "band": pl.String, "k": pl.Int64, "best": pl.Boolean, "published": pl.String},
    **{"z": pl.Float64, "name": pl.String},
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
        least one of them; otherwise every run is drawn but those of the base policy.
    estimators
        Advantage estimators whose ``fingerprint`` is drawn instead of runs: ``y`` is one of its arrays.
    decoding
        True for tables with a ``greedy`` column: greedy answers where every run has them, else sampled ones.
    average_over
        Column whose values are averaged, those that all runs have (``"benchmark"``).
    one_per
        Column of which every value gets a panel of its own (``"benchmark"``).
    sparse
        True for what not every step records: steps without a value are left out, and break no line.
    window
        Steps of a centred running mean; 1 for none. Runs shorter than two windows are not smoothed.
    note
        Text for the foot of the figure; fields in braces are filled from the tables' metadata.
    kind
        ``"lines"``, ``"points"`` with error bars, ``"stacked"`` for parts that add up (a panel for each method),
        ``"scores"`` for a method x benchmark table, ``"map"`` for values over a plane with marked points, or
        ``"ranking"`` for named values with error bars, one below the other; the last two for one method only.
    zero_line
        True for a horizontal line at 0.
    bounds
        Values that y cannot pass; the axis does not either.
    inside
        Only points whose x lies strictly between these two are drawn; None for all.
    only
        A column, and a key of the tables' metadata: only rows that have its value in that column are drawn; () for all.
    baseline
        True to draw the base policy, where it was measured, as a horizontal line.
    at
        For ``"scores"``: the rule for the validation step, see `entropy_lab.plots.scores.chosen_steps`.
    published
        For ``"scores"``: True to add the numbers that the paper published, as a panel of their own.
    parts, whole
        For ``"stacked"``: the column whose values are stacked, and its value in rows of totals, which are not.
    line
        For ``"stacked"``: column of the totals that is drawn as a line over the stack.
    running
        For ``"stacked"``: True for running sums over x.
    alone
        For ``"stacked"``: True to leave the panel out where there are several methods.
    z
        For ``"map"``: column of the values that colour shows.

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
    sparse: bool = False
    window: int = 1
    note: str = ""
    kind: Literal["lines", "points", "stacked", "scores", "map", "ranking"] = "lines"
    zero_line: bool = False
    bounds: tuple[float | None, float | None] = (None, None)
    inside: tuple[float, float] | None = None
    only: tuple[str, str] | tuple[()] = ()
    baseline: bool = False
    at: str = ""
    published: bool = False
    parts: str = ""
    whole: str = ""
    line: str = ""
    running: bool = False
    alone: bool = False
    z: str = ""


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
    ends
        True to draw intervals at the last point of each curve only: so many bands would hide each other.
    baselines
        Series that are drawn as a horizontal line.
    published
        Source of a panel of published numbers; empty for what the runs measured.
    line
        Series that is drawn as a line over a stack of the others; empty without.
    arrow
        Of a map: start and unit vector (x, y, dx, dy) of an arrow; empty without.
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
    ends: bool = False
    baselines: tuple[str, ...] = ()
    published: str = ""
    line: str = ""
    arrow: tuple[float, ...] = ()


@dataclass
class Pages:
    """Panels made so far, and what could not be made; the figure's table in the end.

    Examples
    --------
    >>> pages = Pages()
    >>> pages.lack(Panel("a", "Entropy", "entropy", ("step",), "entropy", "entropy", "nats/token"), "", "no table")
    >>> pages.table("mine").metadata["missing"]
    [{'panel': 'a', 'model': '', 'series': '', 'reason': 'no table'}]
    """

    frames: list[pl.DataFrame] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    agreement: list[dict[str, Any]] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)

    def lack(self, panel: Panel, model: str, reason: str, run: RunTables | None = None) -> None:
        """Note that a panel lacks something, or one run in it."""
        seed = "" if run is None or run.seed is None else f", seed {run.seed}"
        self.lack_series(panel.key, model, reason, f"{run.label}{seed}" if run else "")

    def lack_series(self, key: str, model: str, reason: str, series: str) -> None:
        """Note that a series lacks something in the panel of that key."""
        self.missing.append({"panel": key, "model": model, "series": series, "reason": reason})

    def add(
        self,
        panel: Panel,
        names: tuple[str, str, str],
        x: str,
        rows: pl.DataFrame,
        notes: Sequence[str],
        **more: Any,
    ) -> None:
        """Add a panel: its key, title and model, the column of x, its rows, and what the foot says of it."""
        key, title, model = names
        self.frames.append(tidy(rows, panel=key, title=title, model=model))
        y_label, percent = f"{panel.y_label} ({panel.unit})", panel.unit == "%"
        told = (key, title, model, x, X_AXES.get(x, x), y_label, panel.kind, panel.zero_line, panel.bounds, percent)
        self.drawn.append(Drawn(*told, tuple(notes), **more))

    def table(self, name: str) -> Table:
        """Make the tidy table of the figure."""
        frame = pl.concat(self.frames) if self.frames else pl.DataFrame(schema=_SCHEMA)
        metadata = {
            "panels": [asdict(drawn) for drawn in self.drawn],
            "missing": self.missing,
            "steps": self.steps,
            "agreement": self.agreement,
            "beside": self.beside,
        }
        return Table(name, frame, json.loads(json.dumps(metadata)))


def tidy(rows: pl.DataFrame, **texts: str) -> pl.DataFrame:
    """Bring rows to the columns and types of a figure's table; columns that they lack are null, NaN becomes null.

    Parameters
    ----------
    rows
        Some of the columns of a figure's table.
    **texts
        Column -> text, the same in every row.

    Returns
    -------
    polars.DataFrame
        All columns of a figure's table, see `entropy_lab.plots.collect.collect`.

    Examples
    --------
    >>> tidy(pl.DataFrame({"x": [1], "y": [float("nan")]}), panel="a").select("panel", "x", "y").row(0)
    ('a', 1.0, None)
    """
    columns = {**{name: pl.col(name) for name in rows.columns}, **{key: pl.lit(text) for key, text in texts.items()}}
    found = [columns.get(name, pl.lit(None)).cast(dtype).alias(name) for name, dtype in _SCHEMA.items()]
    return rows.select(found).with_columns(pl.col(pl.Float64).fill_nan(None))


def spelled(params: Mapping[str, Any]) -> str:
    """Write parameters as JSON, sorted by name.

    Examples
    --------
    >>> spelled({"beta_pos": 0.9, "beta_neg": 0.4})
    '{"beta_neg": 0.4, "beta_pos": 0.9}'
    """
    return json.dumps(dict(params), sort_keys=True, default=str)


def panels_of(table: Table) -> list[Mapping[str, Any]]:
    """Give the descriptions of a figure's panels.

    Parameters
    ----------
    table
        As `entropy_lab.plots.collect.collect` makes it.

    Returns
    -------
    list
        Fields of `Drawn`, one mapping for each panel.

    Raises
    ------
    ParameterError
        The table is of another origin: an analysis' own, say.

    Examples
    --------
    >>> panels_of(Table("entropy", pl.DataFrame()))
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: table entropy: has no panels; the table of a figure. Hint: make it with \
entropy_lab.plots.collect.collect
    """
    if "panels" not in table.metadata:
        hint = "make it with entropy_lab.plots.collect.collect"
        raise ParameterError(f"table {table.name}", "has no panels", "the table of a figure", hint)
    return list(table.metadata["panels"])
