"""Method x benchmark accuracies at one validation step of each run (Table 1)."""

from __future__ import annotations

from typing import Final

import polars as pl

from entropy_lab.errors import ParameterError
from entropy_lab.plots.series import over_seeds

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


def scores(rows: pl.DataFrame, steps: dict[int, int]) -> pl.DataFrame:
    """Make the table: mean and range over seeds of each series on each benchmark, and their average.

    The average is over all benchmarks of the table; a run that lacks one has none, because a mean over fewer
    benchmarks is another number.

    Parameters
    ----------
    rows
        Columns series, run, x (the step), benchmark, k, y, low, high, raw.
    steps
        As `chosen_steps` gives.

    Returns
    -------
    polars.DataFrame
        Columns of `over_seeds` with ``benchmark``, ``k`` (smallest number of answers per problem) and ``best``; x
        numbers the benchmarks from 0. ``best`` marks the highest mean of a benchmark where it and all others have
        at least two seeds and its range lies above theirs.

    Examples
    --------
    >>> rows = {"series": ["A", "A", "B", "B"], "run": [0, 1, 2, 3], "y": [0.5, 0.6, 0.2, 0.3]}
    >>> nothing = dict.fromkeys(("low", "high", "raw"), pl.lit(None, pl.Float64))
    >>> rows = pl.DataFrame(rows).with_columns(x=1.0, benchmark=pl.lit("M"), k=4, **nothing)
    >>> scores(rows, {0: 1, 1: 1, 2: 1, 3: 1}).select("series", "benchmark", "y", "n_seeds", "best").rows()
    [('A', 'M', 0.55, 2, True), ('B', 'M', 0.25, 2, False)]
    """
    names = rows["benchmark"].unique(maintain_order=True).to_list()
    chosen = pl.DataFrame({"run": list(steps), "x": list(steps.values())}, schema={"run": pl.Int64, "x": pl.Float64})
    kept = rows.with_columns(pl.col("run").cast(pl.Int64)).join(chosen, on=["run", "x"])
    if len(names) > 1:
        mean = kept.group_by("series", "run", maintain_order=True).agg(
            y=pl.when(pl.col("benchmark").n_unique() == len(names)).then(pl.col("y").mean()).first()
        )
        kept = pl.concat([kept, mean.with_columns(benchmark=pl.lit(AVERAGE))], how="diagonal")
        names = [*names, AVERAGE]
    number = pl.col("benchmark").replace_strict({name: i for i, name in enumerate(names)}, return_dtype=pl.Float64)
    kept = kept.with_columns(x=number)
    labels = kept.group_by("x").agg(pl.col("benchmark").first(), k=pl.col("k").min().cast(pl.Int64))
    table = over_seeds(kept).join(labels, on="x")
    return table.with_columns(best=_stands_out().over("x")).sort("series", "x")


def _stands_out() -> pl.Expr:
    """Whether a row's whole range lies above that of every other row of its benchmark."""
    second = pl.col("high").drop_nulls().sort(descending=True).get(1, null_on_oob=True)
    leads = (pl.col("high") == pl.col("high").max()) & (pl.col("low") > second)
    measured = pl.col("n_runs").filter(pl.col("y").is_not_null())
    return (leads & (measured.min() >= 2)).fill_null(False)
