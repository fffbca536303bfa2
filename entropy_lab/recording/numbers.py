"""Numbers of a step's line in ``metrics.jsonl``, from the rollouts of the step."""

from __future__ import annotations

import numpy as np
import polars as pl


def step_numbers(frame: pl.DataFrame) -> dict[str, float | None]:
    """Reduce a step's rollouts as ``schema.METRICS`` says.

    Parameters
    ----------
    frame
        The rollouts, with ``reward``, ``correct`` and ``group_id``, and whatever else was recorded.

    Returns
    -------
    dict of str to float
        ``entropy`` is the mean over tokens (rollouts without an entropy leave it), ``n_tokens`` a sum, the others are
        means over rollouts or shares of groups. Only what the columns allow.

    Examples
    --------
    >>> rollouts = {"reward": [1.0, 0.0], "correct": [True, False], "group_id": [0, 0]}
    >>> found = step_numbers(pl.DataFrame({**rollouts, "n_tokens": [1, 3], "entropy": [1.0, 0.2]}))
    >>> found["entropy"], found["n_tokens"], found["all_solved"]
    (0.4, 4, 0.0)
    """
    wanted: dict[str, pl.Expr] = {"reward": pl.col("reward").mean()}
    if "n_tokens" in frame.columns:
        n_tokens = pl.col("n_tokens").cast(pl.Int64)
        wanted |= {"n_tokens": n_tokens.sum(), "mean_length": n_tokens.mean()}
        if "entropy" in frame.columns:
            measured = pl.when(pl.col("entropy").is_not_null()).then(n_tokens)
            wanted["entropy"] = (pl.col("entropy") * n_tokens).sum() / measured.sum()
    if "truncated" in frame.columns:
        wanted["truncated"] = pl.col("truncated").mean()
    found: dict[str, float | None] = frame.select(**wanted).row(0, named=True)
    found["unverified"] = frame["correct"].null_count() / frame.height
    accuracy = frame.group_by("group_id").agg(pl.col("correct").mean()).drop_nulls()["correct"].to_numpy()
    if len(accuracy):
        found |= {"all_solved": float(np.mean(accuracy == 1)), "none_solved": float(np.mean(accuracy == 0))}
    return found
