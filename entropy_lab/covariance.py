"""Covariance of log-likelihood and advantage within groups: the first-order driver of entropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]


def group_covariance(
    x: FloatArray, y: FloatArray, starts: NDArray[np.int64], *, ddof: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Sample covariance of two quantities within each group.

    ``cov_g = sum_i (x_i - mean_g x) (y_i - mean_g y) / (n_g - ddof)`` over the rollouts of group g where both values
    are present. With x = log π(y|x) / n_tokens and y = A it is Eq. 13, and by Eq. 9 one natural-gradient step changes
    the entropy by about ``-eta * cov``.

    Parameters
    ----------
    x, y
        Values of each rollout, sorted by group, shape (rollouts,); NaN marks an absent value.
    starts
        First row of each group, shape (groups,).
    ddof
        1 for the unbiased estimate, 0 for the population covariance.

    Returns
    -------
    covariance : numpy.ndarray
        Shape (groups,), in units of x times y; NaN for a group with fewer than two complete rollouts.
    n : numpy.ndarray
        Complete rollouts of each group, shape (groups,).

    Raises
    ------
    ParameterError
        ``ddof`` is neither 0 nor 1.

    References
    ----------
    arXiv 2604.04894, Eq. 9, 12 and 13.

    Examples
    --------
    >>> x = np.array([-1.0, -2.0, -3.0, -1.0])
    >>> y = np.array([1.0, 0.0, -1.0, 1.0])
    >>> group_covariance(x, y, np.array([0, 3]))
    (array([ 1., nan]), array([3., 1.]))
    """
    if ddof not in (0, 1):
        raise ParameterError("ddof", f"is {ddof!r}", "0 or 1")
    if not len(starts):
        return np.zeros(0), np.zeros(0)
    complete = ~(np.isnan(x) | np.isnan(y))
    n = np.add.reduceat(complete.astype(np.float64), starts)
    sizes = np.diff(starts, append=len(x))
    # Two passes, centred first: a one-pass sum of products loses digits when the means are large beside the spread.
    dx = _centred(x, complete, n, starts, sizes)
    dy = _centred(y, complete, n, starts, sizes)
    products = np.add.reduceat(dx * dy, starts)
    return np.divide(products, n - ddof, out=np.full(len(n), np.nan), where=n >= 2), n


def _centred(
    values: FloatArray, complete: NDArray[np.bool_], n: FloatArray, starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> FloatArray:
    kept = np.where(complete, values, 0.0)
    mean = np.add.reduceat(kept, starts) / np.maximum(n, 1)
    return np.where(complete, kept - np.repeat(mean, sizes), 0.0)
