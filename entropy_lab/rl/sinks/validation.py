"""The numbers of a validation pass that are drawn over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

_GROUP: Final = "validation"


def accuracies(answers: Mapping[str, Sequence[Any]] | pl.DataFrame) -> dict[str, float]:
    """Accuracy on each benchmark and their mean, of greedy and of sampled answers.

    Parameters
    ----------
    answers
        Columns ``benchmark``, ``problem_id``, ``greedy`` and ``correct`` of the run format's ``evals`` table, one entry
        an answer; those of which ``greedy`` is null are left out.

    Returns
    -------
    dict of str to float
        ``validation/<benchmark>/greedy``; of k sampled answers to each problem ``validation/<benchmark>/avg_at_<k>``;
        means over the benchmarks, ``validation/greedy`` and ``validation/avg_at_<k>``. In [0, 1]; an answer without a
        verdict counts as wrong. Empty without answers.

    Examples
    --------
    >>> names = ("benchmark", "problem_id", "greedy", "correct")
    >>> rows = [("a", "1", True, True), ("a", "1", False, True), ("a", "1", False, None), ("b", "2", True, False)]
    >>> found = accuracies(dict(zip(names, zip(*rows), strict=True)))
    >>> found["validation/a/greedy"], found["validation/b/greedy"], found["validation/greedy"]
    (1.0, 0.0, 0.5)
    >>> found["validation/a/avg_at_2"]
    0.5
    """
    frame = pl.DataFrame({name: answers[name] for name in ("benchmark", "problem_id", "greedy", "correct")})
    frame = frame.cast({"greedy": pl.Boolean, "correct": pl.Boolean}).filter(pl.col("greedy").is_not_null())
    frame = frame.with_columns(pl.col("correct").fill_null(False))
    by_problem = frame.group_by("greedy", "benchmark", "problem_id", maintain_order=True).agg(
        pl.len(), pl.mean("correct")
    )
    by_benchmark = by_problem.group_by("greedy", "benchmark", maintain_order=True).agg(
        pl.max("len"), pl.mean("correct")
    )
    found: dict[str, float] = {}
    for (greedy,), rows in by_benchmark.group_by("greedy", maintain_order=True):
        how = "greedy" if greedy else f"avg_at_{rows.select(pl.max('len')).item()}"
        found |= {f"{_GROUP}/{row['benchmark']}/{how}": row["correct"] for row in rows.iter_rows(named=True)}
        found[f"{_GROUP}/{how}"] = rows.select(pl.mean("correct")).item()
    return found
