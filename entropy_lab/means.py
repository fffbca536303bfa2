"""Means over the rows that have a value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def mean_where(values: FloatArray, kept: NDArray[np.bool_]) -> float:
    """Mean of the values kept, ``sum_i kept_i v_i / sum_i kept_i``.

    Parameters
    ----------
    values
        Shape (n,); what is not kept may be NaN.
    kept
        Shape (n,).

    Returns
    -------
    float
        NaN when nothing is kept.

    Examples
    --------
    >>> mean_where(np.array([1.0, np.nan, 4.0]), np.array([True, False, True]))
    2.5
    """
    n = np.count_nonzero(kept)
    return float(np.where(kept, values, 0.0).sum() / n) if n else float("nan")


def mean_present(values: FloatArray) -> float:
    """Mean of the values that are not NaN; NaN when there is none.

    Examples
    --------
    >>> mean_present(np.array([1.0, np.nan, 4.0]))
    2.5
    """
    return mean_where(values, ~np.isnan(values))


def weighted_mean_where(values: FloatArray, weights: FloatArray, kept: NDArray[np.bool_]) -> float:
    """Weighted mean of the values kept, ``sum_i kept_i w_i v_i / sum_i kept_i w_i``.

    Parameters
    ----------
    values, weights
        Shape (n,), numbers wherever ``kept`` is true.
    kept
        Shape (n,).

    Returns
    -------
    float
        NaN when the weights kept sum to 0.

    Examples
    --------
    >>> weighted_mean_where(np.array([1.0, 4.0]), np.array([2.0, 1.0]), np.array([True, True]))
    2.0
    """
    w = np.where(kept, weights, 0.0)
    total = w.sum()
    return float(np.where(kept, values, 0.0) @ w / total) if total else float("nan")
