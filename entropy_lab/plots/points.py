"""From the tables of runs to points: way of decoding, mean over benchmarks, running mean. One row per run and x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from entropy_lab.plots.series import RunTables, running_mean

Sources = list[tuple[RunTables, pl.DataFrame]]
"""Runs with the rows of one of their tables."""

DECODINGS: Final = {
    "greedy": pl.col("greedy"),
    "sampled": ~pl.col("greedy"),
    "undeclared": pl.col("greedy").is_null(),
}
"""Name -> rows of a validation table decoded so; ``undeclared`` when the run did not record it."""


def decoded(sources: Sources, name: str) -> Sources:
    """Keep the rows decoded in one way, and the runs that have such rows.

    Parameters
    ----------
    sources
        Runs with rows that have a column ``greedy`` (null: not recorded).
    name
        A key of `DECODINGS`.

    Returns
    -------
    list
        May be empty.

    Examples
    --------
    >>> rows = pl.DataFrame({"greedy": [True, False, None], "accuracy": [0.6, 0.5, 0.4]})
    >>> [frame["accuracy"].to_list() for _, frame in decoded([(None, rows)], "sampled")]
    [[0.5]]
    """
    kept = [(run, frame.filter(DECODINGS[name])) for run, frame in sources]
    return [(run, frame) for run, frame in kept if not frame.is_empty()]


def common_decoding(sources: Sources) -> str:
    """Choose the way of decoding in which runs are compared.

    Parameters
    ----------
    sources
        As for `decoded`.

    Returns
    -------
    str
        ``"greedy"`` if every run has greedy answers, else ``"sampled"`` if every run has those; else the way that
        most runs have.

    Examples
    --------
    >>> greedy = pl.DataFrame({"greedy": [True]})
    >>> both = pl.DataFrame({"greedy": [True, False]})
    >>> sampled = pl.DataFrame({"greedy": [False]})
    >>> common_decoding([(None, both), (None, greedy)]), common_decoding([(None, both), (None, sampled)])
    ('greedy', 'sampled')
    """
    numbers = {name: len(decoded(sources, name)) for name in DECODINGS}
    return max(numbers, key=lambda name: numbers[name])  # the first of equals


def avg_at_k(decoding: str, sources: Sources) -> str:
    """Name a way of decoding for a reader: ``greedy``, or ``avg@8`` for the mean over 8 sampled answers.

    Parameters
    ----------
    decoding
        A key of `DECODINGS`.
    sources
        Rows decoded so, with a column ``k``.

    Returns
    -------
    str
        A range such as ``avg@5–10`` when benchmarks differ in k.

    Examples
    --------
    >>> avg_at_k("sampled", [(None, pl.DataFrame({"k": [5, 10, 5]}))])
    'avg@5–10'
    """
    counts = sorted({int(k) for _, frame in sources if "k" in frame.columns for k in frame["k"].drop_nulls()})
    if decoding == "greedy" or not counts:
        return decoding
    span = between(counts)
    return f"avg@{span}" if decoding == "sampled" else f"{decoding}, k = {span}"


def between(numbers: Sequence[int]) -> str:
    """Spell the range of some whole numbers.

    Parameters
    ----------
    numbers
        At least one.

    Returns
    -------
    str
        ``"3"`` when all are equal, else ``"2–3"``.

    Examples
    --------
    >>> between([3, 2, 3]), between([5])
    ('2–3', '5')
    """
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


def values_in_common(column: str, sources: Sources) -> list[Any]:
    """Find the values of a column that all runs have, so that means over them compare.

    Parameters
    ----------
    column
        Such as ``"benchmark"``.
    sources
        Runs with their rows.

    Returns
    -------
    list
        Sorted; empty when no value is common.

    Examples
    --------
    >>> values_in_common("b", [(None, pl.DataFrame({"b": ["A", "B"]})), (None, pl.DataFrame({"b": ["B", "C"]}))])
    ['B']
    """
    found = [set(frame[column].drop_nulls().unique()) for _, frame in sources]
    return sorted(set.intersection(*found)) if found else []


def mean_over(frame: pl.DataFrame, column: str, values: Sequence[Any], x: str, y: str) -> pl.DataFrame:
    """Average ``y`` over the ``values`` of a column, at each x.

    Parameters
    ----------
    frame
        Columns ``column``, ``x`` and ``y``.
    column, values
        What is averaged over; one value is no average and keeps its rows, with their interval.
    x, y
        Column names.

    Returns
    -------
    polars.DataFrame
        Columns x and y; y is null where a value is missing, because a mean over fewer is another number.

    Examples
    --------
    >>> frame = pl.DataFrame({"step": [0, 0, 1], "b": ["A", "B", "A"], "y": [0.2, 0.4, 0.3]})
    >>> mean_over(frame, "b", ["A", "B"], "step", "y").sort("step")["y"].round(3).to_list()
    [0.3, None]
    """
    rows = frame.filter(pl.col(column).is_in(values))
    if len(values) == 1:
        return rows
    complete = pl.col(column).filter(pl.col(y).is_finite()).n_unique() == len(values)
    return rows.group_by(x).agg(pl.when(complete).then(pl.col(y).mean()))


def numbers(frame: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    """Take columns of a frame as Float64 under new names.

    Parameters
    ----------
    frame
        Any rows.
    columns
        New name -> column; a column that the frame lacks gives nulls.

    Returns
    -------
    polars.DataFrame
        As many rows as ``frame``.

    Examples
    --------
    >>> numbers(pl.DataFrame({"step": [3]}), {"x": "step", "low": ""}).rows()
    [(3.0, None)]
    """
    found = {key: pl.col(name) if name in frame.columns else pl.lit(None) for key, name in columns.items()}
    return frame.with_columns(**{key: value.cast(pl.Float64) for key, value in found.items()}).select(list(columns))


def points_of_run(frame: pl.DataFrame, columns: tuple[str, str, str, str], window: float = 1) -> pl.DataFrame:
    """Turn the rows of one run into points.

    Parameters
    ----------
    frame
        Rows of the run.
    columns
        Names of the columns for x, y, low and high; a missing low or high is null.
    window
        Width of a running mean over x, see `running_mean`; 1 for none. A smoothed point has no interval: that of a
        single step says nothing about the mean.

    Returns
    -------
    polars.DataFrame
        Columns x, y, low, high, raw (y before smoothing, null without), sorted by x, one row per x: rows with the
        same x are averaged, and then have no interval.

    Examples
    --------
    >>> frame = pl.DataFrame({"step": [1, 0, 1], "reward": [0.2, 0.5, 0.4]})
    >>> points_of_run(frame, ("step", "reward", "", ""))["y"].round(3).to_list()
    [0.5, 0.3]
    """
    rows = numbers(frame, dict(zip(("x", "y", "low", "high"), columns, strict=True))).drop_nulls("x")
    nothing = dict.fromkeys(("low", "high"), pl.lit(None, pl.Float64))
    if rows["x"].n_unique() < rows.height:
        rows = rows.group_by("x").agg(pl.col("y").mean()).with_columns(**nothing)
    rows = rows.sort("x").with_columns(raw=pl.lit(None, pl.Float64))
    if window > 1:
        smooth = running_mean(rows["x"].to_numpy(), rows["y"].to_numpy(), window)
        rows = rows.with_columns(raw="y", y=pl.Series(smooth, dtype=pl.Float64), **nothing)
    return rows
