"""Whether columns of a run agree with each other: what a reader cannot see from one column alone."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

import polars as pl

from entropy_lab.run import Run
from entropy_lab.step_files import StepFile
from entropy_lab.validation import ROUNDING

TOLERANCE: Final = 1e-3
"""Relative difference beyond which two recordings of the same float32 quantity disagree."""

_TOKEN_LISTS: Final = ("token_ids", "token_logp", "token_logp_after", "token_entropy")
_SUMS: Final = {"token_logp": "logp", "token_logp_after": "logp_after"}


def disagreements(run: Run, file: StepFile) -> Iterator[str]:
    """Name the disagreements between columns of one step's rollouts.

    ``group_accuracy`` against the mean of ``correct`` over the group; the lengths of token lists against ``n_tokens``;
    the sums of token log-probabilities against ``logp`` and ``logp_after``, and their range.

    Parameters
    ----------
    run
        The run.
    file
        One of ``run.sound_files``.

    Yields
    ------
    str
        One line each, with how many rows disagree.
    """
    schema = run.sound_files[file]
    wanted = ("group_id", "correct", "group_accuracy", "n_tokens", "logp", "logp_after", *_TOKEN_LISTS)
    frame = file.read([name for name in wanted if name in schema])
    rules: dict[str, pl.Expr] = {}
    if "group_accuracy" in schema:
        accuracy = pl.col("correct").mean().over("group_id")
        rules["group_accuracy is not the mean of correct over the group"] = _differ(pl.col("group_accuracy"), accuracy)
    rules |= token_rules(schema)
    for text, rule in rules.items():
        rows = frame.select(rule.fill_null(False).sum()).item()
        if rows:
            yield f"{file.label}: {text} in {rows:,} of {frame.height:,} rows"


def token_rules(columns: Container[str]) -> dict[str, pl.Expr]:
    """Give the rules between token lists and the totals of their rows, of the columns that are there.

    Parameters
    ----------
    columns
        Names of the columns at hand.

    Returns
    -------
    dict
        What is wrong -> an expression that is true for the rows where it is.

    Examples
    --------
    >>> rows = pl.DataFrame({"token_logp": [[-1.0, -2.0], [-1.0]], "logp": [-3.0, -2.0], "n_tokens": [2, 1]})
    >>> [(text, rows.select(rule.sum()).item()) for text, rule in token_rules(rows.columns).items()][1]
    ('logp is not the sum of token_logp', 1)
    """
    rules: dict[str, pl.Expr] = {}
    for name in _TOKEN_LISTS:
        if name in columns and "n_tokens" in columns:
            rules[f"{name} has another length than n_tokens"] = pl.col(name).list.len() != pl.col("n_tokens")
    for name, total in _SUMS.items():
        if name in columns and total in columns:
            rules[f"{total} is not the sum of {name}"] = _differ(pl.col(name).list.sum(), pl.col(total))
    for name in _SUMS:
        if name in columns:
            # max() passes over NaN, which a sum keeps.
            outside = (pl.col(name).list.max() > ROUNDING) | pl.col(name).list.sum().is_nan()
            rules[f"{name} holds a positive or NaN log-probability"] = outside
    return rules


def _differ(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    left, right = left.cast(pl.Float64), right.cast(pl.Float64)
    return (left - right).abs() > TOLERANCE * pl.max_horizontal(right.abs(), pl.lit(1.0))
