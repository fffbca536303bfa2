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
    # Two passes, centred first: a one-pass sum of products loses digits when the means are large beside the spread.
    dx, n = group_centred(x, complete, starts)
    dy, _ = group_centred(y, complete, starts)
    products = np.add.reduceat(dx * dy, starts)
    return np.divide(products, n - ddof, out=np.full(len(n), np.nan), where=n >= 2), n


def group_centred(
    values: FloatArray, kept: NDArray[np.bool_], starts: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Take from each value the mean of its group.

    Parameters
    ----------
    values
        Sorted by group, shape (rollouts,); what is not kept may be NaN.
    kept
        Rows that make up the means, shape (rollouts,).
    starts
        First row of each group, shape (groups,), at least one.

    Returns
    -------
    centred : numpy.ndarray
        Shape (rollouts,); 0 where a row is not kept.
    n : numpy.ndarray
        Rows kept of each group, shape (groups,).

    Examples
    --------
    >>> group_centred(np.array([1.0, 3.0, np.nan, 5.0]), np.array([True, True, False, True]), np.array([0, 3]))
    (array([-1.,  1.,  0.,  0.]), array([2., 1.]))
    """
    n = np.add.reduceat(kept.astype(np.float64), starts)
    filled = np.where(kept, values, 0.0)
    mean = np.add.reduceat(filled, starts) / np.maximum(n, 1)
    return np.where(kept, filled - np.repeat(mean, np.diff(starts, append=len(values))), 0.0), n
