"""Method x benchmark accuracies at one validation step of each run (Table 1)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import polars as pl

from entropy_lab.errors import ParameterError
from entropy_lab.plots.series import LEAST_SEEDS, over_seeds

AVERAGE: Final = "Avg."
"""Name of the column with the mean over all benchmarks."""
_ALLOWED: Final = '"last", "best" or "best:BENCHMARK"'


def chosen_steps(rows: pl.DataFrame, rule: str) -> dict[int, int]:
    """Choose the validation step at which each run is judged.

    Only steps at which the run has all its benchmarks count. Choosing the best step on the problems that are then
    reported flatters every method; ``"last"`` does not.

    Parameters
    ----------
    rows
        Columns run, x (the step), benchmark, y (accuracy).
    rule
        ``"last"``; ``"best"``, the highest mean over benchmarks; or ``"best:MATH-500"``, the highest accuracy on
        that benchmark (the paper's rule). The earliest of equal steps is taken.

    Returns
    -------
    dict
        Run -> step; a run without a complete step has no entry.

    Raises
    ------
    ParameterError
        The rule is none of these, or no run has the benchmark.

    Examples
    --------
    >>> rows = pl.DataFrame({"run": [0, 0], "x": [10.0, 20.0], "benchmark": ["A", "A"], "y": [0.5, 0.4]})
    >>> chosen_steps(rows, "last"), chosen_steps(rows, "best:A")
    ({0: 20}, {0: 10})
    """
    kind, _, benchmark = rule.partition(":")
    if rule not in ("last", "best") and (kind != "best" or benchmark not in rows["benchmark"]):
        raise ParameterError("rule for the step", f"is {rule!r}", _ALLOWED + " with a benchmark of the runs")
    value = pl.col("y").filter(pl.col("benchmark") == benchmark).first() if benchmark else pl.col("y").mean()
    steps = (
        rows.filter(pl.col("y").is_finite())
        .with_columns(n_all=pl.col("benchmark").n_unique().over("run"))
        .group_by("run", "x")
        .agg(value=value, complete=pl.col("benchmark").n_unique() == pl.col("n_all").first())
        .filter(pl.col("complete") & pl.col("value").is_not_null())
    )
    order = ["x"] if kind == "last" else ["value", "x"]
    last = steps.sort(order, descending=[kind == "last"] if kind == "last" else [True, False])
    chosen = last.group_by("run", maintain_order=True).first().sort("run")
    return {run: int(step) for run, step in chosen.select("run", "x").iter_rows()}


def at_steps(rows: pl.DataFrame, steps: dict[int, int]) -> pl.DataFrame:
    """Keep the rows of the chosen step of each run.

    Parameters
    ----------
    rows
        Columns run and x (the step).
    steps
        As `chosen_steps` gives.

    Returns
    -------
    polars.DataFrame
        The same columns.

    Examples
    --------
    >>> at_steps(pl.DataFrame({"run": [0, 0, 1], "x": [10.0, 20.0, 20.0]}), {0: 10}).rows()
    [(0, 10.0)]
    """
    chosen = pl.DataFrame({"run": list(steps), "x": list(steps.values())}, schema={"run": pl.Int64, "x": pl.Float64})
    return rows.with_columns(pl.col("run").cast(pl.Int64)).join(chosen, on=["run", "x"], maintain_order="left")


def averages(rows: pl.DataFrame) -> pl.DataFrame:
    """Average each run over the benchmarks of the table.

    Parameters
    ----------
    rows
        Columns series, run, benchmark, y; one step of each run.

    Returns
    -------
    polars.DataFrame
        Columns series, run, y; y is null for a run that lacks a benchmark, because a mean over fewer is another number.

    Examples
    --------
    >>> rows = pl.DataFrame({"run": [0, 0, 1], "benchmark": ["M", "N", "M"], "y": [0.25, 0.75, 0.5]})
    >>> averages(rows.with_columns(series=pl.lit("A"))).rows()
    [('A', 0, 0.5), ('A', 1, None)]
    """
    n = rows["benchmark"].n_unique()
    complete = pl.col("benchmark").filter(pl.col("y").is_finite()).n_unique() == n
    return rows.group_by("series", "run", maintain_order=True).agg(y=pl.when(complete).then(pl.col("y").mean()))


def scores(rows: pl.DataFrame, references: Collection[str] = ()) -> pl.DataFrame:
    """Make the table: mean and interval over seeds of each series on each benchmark, and their average.

    Parameters
    ----------
    rows
        Columns series, run, benchmark, k, y, low, high, raw; one step of each run, see `at_steps`. At least one row.
    references
        Series that are no trained method: they need no seeds, but to stand out a method must lie above them, too.

    Returns
    -------
    polars.DataFrame
        Columns of `over_seeds` with ``benchmark``, ``k`` (smallest number of answers per problem) and ``best``; x
        numbers the benchmarks from 0, the average (see `averages`) last. ``best`` marks the highest mean of a
        benchmark where its interval lies above those of all others, and all have at least three seeds.

    Examples
    --------
    >>> rows = {"series": ["A"] * 3 + ["B"] * 3, "run": range(6), "y": [0.5, 0.51, 0.52, 0.2, 0.21, 0.22]}
    >>> nothing = dict.fromkeys(("low", "high", "raw"), pl.lit(None, pl.Float64))
    >>> rows = pl.DataFrame(rows).with_columns(benchmark=pl.lit("M"), k=4, **nothing)
    >>> scores(rows).select("series", "benchmark", pl.col("y").round(3), "n_seeds", "best").rows()
    [('A', 'M', 0.51, 3, True), ('B', 'M', 0.21, 3, False)]
    """
    names = rows["benchmark"].unique(maintain_order=True).to_list()
    if len(names) > 1:
        rows = pl.concat([rows, averages(rows).with_columns(benchmark=pl.lit(AVERAGE))], how="diagonal")
        names = [*names, AVERAGE]
    number = pl.col("benchmark").replace_strict({name: i for i, name in enumerate(names)}, return_dtype=pl.Float64)
    rows = rows.with_columns(x=number)
    labels = rows.group_by("x").agg(pl.col("benchmark").first(), k=pl.col("k").min().cast(pl.Int64))
    table = over_seeds(rows).join(labels, on="x")
    return table.with_columns(best=_stands_out(references).over("x")).sort("series", "x")


def _stands_out(references: Collection[str]) -> pl.Expr:
    """Whether a row's whole interval lies above that of every other row of its benchmark."""
    trained = ~pl.col("series").is_in(list(references))
    second = pl.col("high").drop_nulls().sort(descending=True).get(1, null_on_oob=True)
    leads = trained & (pl.col("high") == pl.col("high").max()) & (pl.col("low") > second)
    measured = pl.col("n_seeds").filter(trained & pl.col("y").is_not_null())
    return (leads & (measured.min() >= LEAST_SEEDS)).fill_null(False)
