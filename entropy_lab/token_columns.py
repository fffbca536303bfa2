"""Columns with one value a token, laid end to end: what analyses of tokens are computed from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.batches import FloatArray, GroupBatch, IntArray


def flat_tokens(
    batch: GroupBatch, names: Sequence[str], kept: NDArray[np.bool_] | None = None
) -> tuple[IntArray, tuple[FloatArray, ...]]:
    """Lay the tokens of a step's rollouts end to end.

    Parameters
    ----------
    batch
        The rollouts.
    names
        List columns, at least one.
    kept
        Rollouts wanted, shape (rollouts,); default all.

    Returns
    -------
    row : numpy.ndarray
        Position of each token's rollout in the batch, rising, shape (tokens,). Rollouts without one of the lists, or
        whose lists differ in length or lack a value, have no token; a batch without one of the columns has none at all.
    values : tuple of numpy.ndarray
        One array of shape (tokens,) for each name.

    Examples
    --------
    >>> lists = {"token_logp": pl.Series([[-1.0, -2.0], None, [-3.0]])}
    >>> batch = GroupBatch(0, {"correct": np.ones(3)}, lists, np.array([0]))
    >>> flat_tokens(batch, ["token_logp"])
    (array([0, 0, 2]), (array([-1., -2., -3.]),))
    """
    nothing = np.zeros(0)
    if not batch.series.keys() >= set(names):
        return nothing.astype(np.int64), tuple(nothing for _ in names)
    columns = [batch.series[name] for name in names]
    lengths = np.stack([column.list.len().fill_null(0).to_numpy() for column in columns])
    whole = (lengths[0] > 0) & (lengths == lengths[0]).all(axis=0)
    whole = whole if kept is None else whole & kept
    mask = pl.Series(whole)
    values = tuple(column.filter(mask).explode().cast(pl.Float64).to_numpy() for column in columns)
    row = np.repeat(np.flatnonzero(whole), lengths[0][whole])
    absent = np.isnan(values).any(axis=0)
    if absent.any():
        known = ~np.isin(row, row[absent])
        row, values = row[known], tuple(value[known] for value in values)
    return row, values
