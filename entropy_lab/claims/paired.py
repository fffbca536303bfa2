"""Statistics of paired differences over seeds: one-sided t test, effect size, probability of improvement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

FloatArray = NDArray[np.float64]


def one_sided_p(values: FloatArray) -> FloatArray:
    """Test whether a mean is above 0: p of the one-sample (for differences: paired) t test.

    ``p = P(T >= mean / (sd / sqrt(n)))``, T Student with n - 1 degrees of freedom; the null hypothesis is mean <= 0.

    Parameters
    ----------
    values
        One difference per seed along the last axis, shape (..., n).

    Returns
    -------
    numpy.ndarray
        Shape (...), in [0, 1]. NaN when n < 2. Without any spread the limit: 0 when the values are above 0, else 1.

    Examples
    --------
    >>> one_sided_p(np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]])).round(4)
    array([0.0371, 0.    , 1.    ])
    """
    n = values.shape[-1]
    if n < 2:
        return np.full(values.shape[:-1], np.nan)
    mean, sd = values.mean(axis=-1), values.std(axis=-1, ddof=1)
    t = np.divide(mean * np.sqrt(n), sd, out=np.where(mean > 0, np.inf, -np.inf), where=sd > 0)
    return np.asarray(stats.t.sf(t, n - 1), dtype=np.float64)


def hedges_g(values: FloatArray) -> float:
    """Standardised mean of paired differences, corrected for few pairs: Hedges' g_z.

    ``g_z = J mean / sd`` with ``J = Γ(m/2) / (sqrt(m/2) Γ((m-1)/2))``, m = n - 1: without J, mean / sd of three pairs
    overstates its expectation by 77 %.

    Parameters
    ----------
    values
        One difference per seed, shape (n,).

    Returns
    -------
    float
        In standard deviations of the differences. NaN when n < 3 or when the differences do not spread.

    References
    ----------
    Hedges (1981), "Distribution theory for Glass's estimator of effect size and related estimators".

    Examples
    --------
    >>> round(hedges_g(np.array([1.0, 2.0, 3.0])), 4)
    1.1284
    """
    m = len(values) - 1
    if m < 2 or not np.std(values) > 0:
        return float("nan")
    correction = np.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / np.sqrt(m / 2)
    return float(correction * np.mean(values) / np.std(values, ddof=1))


def probability_of_improvement(x: FloatArray, y: FloatArray) -> float:
    """Share of all pairs of runs in which x is above y; a tie counts one half.

    Every run of one method meets every run of the other, whatever their seeds.

    Parameters
    ----------
    x, y
        One value per run, shapes (n,) and (m,).

    Returns
    -------
    float
        In [0, 1]; NaN when either is empty.

    References
    ----------
    Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv 2108.13264.

    Examples
    --------
    >>> probability_of_improvement(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    if not len(x) or not len(y):
        return float("nan")
    return float((1 + np.sign(x[:, None] - y[None, :])).mean() / 2)


def interquartile_mean(values: FloatArray) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at each end.

    Parameters
    ----------
    values
        Shape (n,).

    Returns
    -------
    float
        The plain mean when n < 4; NaN when empty.

    References
    ----------
    Agarwal et al. (2021), arXiv 2108.13264.

    Examples
    --------
    >>> interquartile_mean(np.array([1.0, 2.0, 3.0, 4.0, 90.0]))
    3.0
    """
    return float(stats.trim_mean(values, 0.25)) if len(values) else float("nan")
