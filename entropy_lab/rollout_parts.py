"""Each rollout's part in the entropy change that its advantage presses for, to first order: by two approximations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.entropy_change import covariance_contributions, token_contributions
from entropy_lab.errors import ParameterError
from entropy_lab.token_columns import flat_tokens

PREDICTORS: Final[Mapping[str, tuple[str, ...]]] = {
    "covariance": ("logp", "n_tokens"),
    "vanilla": ("n_tokens", "token_logp", "token_entropy"),
}
"""Approximation -> the columns that it reads."""


def rollout_parts(
    batch: GroupBatch, predictor: str, kept: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Each rollout's part in the entropy change per unit of its advantage, and what sums of parts are divided by.

    ``"covariance"``: ``-(l_i - mean_g l) / (n_g - 1)`` with l = logp / n_tokens, a mean over groups. ``"vanilla"``: see
    `vanilla_parts`, a mean over tokens. The parts of a group add up to 0: a constant added to its advantages changes
    nothing.

    Parameters
    ----------
    batch
        With the predictor's columns.
    predictor
        One of `PREDICTORS`.
    kept
        Rollouts that count, shape (rollouts,).

    Returns
    -------
    part : numpy.ndarray
        Shape (rollouts,), nats/token per unit of step; NaN for rollouts that do not count, or lack a value.
    tokens : numpy.ndarray
        Response tokens of the rollouts that have a part, else NaN; shape (rollouts,).
    weight : numpy.ndarray
        Shape (groups,): 1 for a group that has parts (covariance), or its tokens (vanilla); else 0.

    Raises
    ------
    ParameterError
        There is no such predictor.

    Examples
    --------
    >>> values = {"logp": np.array([-1.0, -6.0]), "n_tokens": np.array([1.0, 2.0]), "correct": np.ones(2)}
    >>> rollout_parts(GroupBatch(0, values, {}, np.array([0])), "covariance", np.array([True, True]))
    (array([-1.,  1.]), array([1., 2.]), array([1.]))
    """
    if predictor not in PREDICTORS:
        raise ParameterError("predictor", f"is {predictor!r}", ", ".join(PREDICTORS))
    tokens = np.where(kept & (batch["n_tokens"] > 0), batch["n_tokens"], np.nan)
    if predictor == "covariance":
        part = covariance_contributions(batch["logp"] / tokens, np.ones(batch.n_rollouts), batch.starts)
    else:
        part = vanilla_parts(batch, ~np.isnan(tokens))
    tokens = np.where(np.isnan(part), np.nan, tokens)
    n_tokens = batch.sum(tokens)
    return part, tokens, np.sign(n_tokens) if predictor == "covariance" else n_tokens


def vanilla_parts(batch: GroupBatch, kept: NDArray[np.bool_]) -> FloatArray:
    """Each rollout's part in the entropy change by the policy gradient on the logits, per unit of its advantage.

    Sums over tokens of `entropy_lab.entropy_change.token_contributions` for an advantage of 1: those of a group add up
    to 0, so that a constant added to its advantages changes nothing.

    Parameters
    ----------
    batch
        With the columns ``token_logp`` and ``token_entropy``.
    kept
        Rollouts that count, shape (rollouts,).

    Returns
    -------
    numpy.ndarray
        Shape (rollouts,); NaN for rollouts that do not count, or lack one of the lists.

    Examples
    --------
    >>> import polars as pl
    >>> lists = {"token_logp": pl.Series([[-0.2], [-1.6]]), "token_entropy": pl.Series([[0.5], [0.5]])}
    >>> vanilla_parts(GroupBatch(0, {"correct": np.ones(2)}, lists, np.array([0])), np.array([True, True])).round(3)
    array([-0.234,  0.234])
    """
    row, (logp, entropy) = flat_tokens(batch, ("token_logp", "token_entropy"), kept)
    each = token_contributions(logp, entropy, np.ones(len(row)), batch.group[row])
    counted = np.bincount(row, minlength=batch.n_rollouts) > 0
    return np.where(counted, np.bincount(row, each, batch.n_rollouts), np.nan)
