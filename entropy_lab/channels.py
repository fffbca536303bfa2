"""Sums over the rollouts of a step by channel, the sign of their advantage, and by group accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from entropy_lab.batches import FloatArray, GroupBatch

CHANNELS: Final = ("negative", "positive", "zero")
"""Signs of an advantage, by name."""
EVERY: Final = "all"
"""The channel of a step's total."""


def channel_sums(batch: GroupBatch, parts: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Sum parts of rollouts by channel and group accuracy, and then over all rollouts that have an advantage.

    Parameters
    ----------
    batch
        With ``advantage`` and ``correct``; rollouts without an advantage are in no channel.
    parts
        Name -> part of each rollout, shape (rollouts,); NaN adds nothing.

    Returns
    -------
    dict of str to numpy.ndarray
        Columns, one entry a row: ``step``, ``channel`` (its place in `CHANNELS`; the last row, the total, has their
        number), ``accuracy`` (NaN where no rollout of the group was verified, and in the total), ``n_groups`` and
        ``n_rollouts`` of the row, and the sum of each part (NaN where no rollout of the row has one). Rows by channel
        and accuracy, unknown accuracies first; only rows with rollouts, but the total in any case.

    Examples
    --------
    >>> values = {"advantage": np.array([1.0, -1.0, -1.0]), "correct": np.array([1.0, 0.0, 0.0])}
    >>> found = channel_sums(GroupBatch(0, values, {}, np.array([0])), {"part": np.array([4.0, 1.0, np.nan])})
    >>> found["channel"], found["part"], found["n_rollouts"]
    (array([0, 1, 3]), array([1., 4., 5.]), array([2., 1., 3.]))
    """
    advantage, n_channels = batch["advantage"], len(CHANNELS)
    channel = np.select([advantage < 0, advantage > 0, advantage == 0], range(n_channels), n_channels)
    edges, of_group = np.unique(np.nan_to_num(batch.accuracy, nan=-1.0), return_inverse=True)
    n_cells = n_channels * len(edges)
    # The cell beyond the last takes the rollouts without an advantage.
    cell = np.where(channel < n_channels, channel * len(edges) + of_group[batch.group], n_cells)

    def over_cells(values: FloatArray) -> FloatArray:
        by_cell = np.bincount(cell, values, n_cells + 1)[:n_cells]
        return np.append(by_cell, by_cell.sum())

    there = [of_group[batch.count(channel == one) > 0] for one in range(n_channels)]
    n_groups = np.concatenate([np.bincount(groups, minlength=len(edges)) for groups in there])
    found = {
        "channel": np.append(np.repeat(np.arange(n_channels), len(edges)), n_channels),
        "accuracy": np.append(np.tile(np.where(edges < 0, np.nan, edges), n_channels), np.nan),
        "n_groups": np.append(n_groups, np.count_nonzero(batch.count(channel < n_channels))),
        "n_rollouts": over_cells(np.ones(batch.n_rollouts)),
    }
    for name, values in parts.items():
        known = ~np.isnan(values)
        found[name] = np.where(over_cells(known * 1.0) > 0, over_cells(np.where(known, values, 0.0)), np.nan)
    shown = found["n_rollouts"] > 0
    shown[-1] = True
    return {"step": np.full(int(shown.sum()), batch.step), **{name: values[shown] for name, values in found.items()}}


def channel_frame(sums: list[dict[str, FloatArray]]) -> pl.DataFrame:
    """Put the sums of steps below each other.

    Parameters
    ----------
    sums
        What `channel_sums` gave for each step; one at least.

    Returns
    -------
    polars.DataFrame
        The columns of `channel_sums`, with names of channels (``all`` in totals) and null for NaN.

    Examples
    --------
    >>> values = {"advantage": np.array([1.0, -1.0]), "correct": np.array([1.0, 0.0])}
    >>> channel_frame([channel_sums(GroupBatch(0, values, {}, np.array([0])), {})])["channel"].to_list()
    ['negative', 'positive', 'all']
    """
    frame = pl.DataFrame({name: np.concatenate([step[name] for step in sums]) for name in sums[0]})
    names = dict(enumerate((*CHANNELS, EVERY)))
    typed = [pl.col("step").cast(pl.Int32), pl.col("n_groups", "n_rollouts").cast(pl.Int64)]
    named = pl.col("channel").replace_strict(names, return_dtype=pl.String)
    return frame.with_columns(*typed, named).fill_nan(None)
