"""Cluster bootstrap of ratios of sums: the intervals of every analysis.

Tokens of a response and rollouts of a group depend on each other, so what is resampled is whole prompts (or problems).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]
_CELLS = 250_000
"""Counts drawn at a time: 2 MB, which stays in a core's cache (4 million took five times as long)."""


def resample_counts(n: int, n_boot: int, rng: np.random.Generator) -> FloatArray:
    """Count how often each of ``n`` clusters is drawn, when ``n`` are drawn with replacement.

    Parameters
    ----------
    n
        Number of clusters.
    n_boot
        Number of resamples.
    rng
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        Shape (n_boot, n), whole numbers as float64; each row sums to ``n``.

    Raises
    ------
    ParameterError
        ``n_boot`` is below 1.

    References
    ----------
    Efron (1979), "Bootstrap methods: another look at the jackknife".

    Examples
    --------
    >>> resample_counts(5, 3, np.random.default_rng(0)).sum(axis=1)
    array([5., 5., 5.])
    """
    if n_boot < 1:
        raise ParameterError("n_boot", f"is {n_boot}", "1 or more resamples")
    draws = rng.integers(0, max(n, 1), size=(n_boot, n))
    cells = (draws + n * np.arange(n_boot)[:, None]).ravel()
    return np.bincount(cells, minlength=n_boot * n).reshape(n_boot, n).astype(np.float64)


class Draws:
    """Resamples of clusters, one draw for all steps of as many: a step's interval does not depend on the others.

    Parameters
    ----------
    n_boot
        Number of resamples, 1 or more.
    seed
        Of the draws, together with the number of clusters.

    Examples
    --------
    >>> draws = Draws(n_boot=3, seed=0)
    >>> draws.counts(5).shape, draws.counts(5) is draws.counts(5)
    ((3, 5), True)
    """

    def __init__(self, n_boot: int, seed: int) -> None:
        self._n_boot, self._seed = n_boot, seed
        self._counts = np.zeros((0, 0))

    def counts(self, n: int) -> FloatArray:
        """Give `resample_counts` of ``n`` clusters; those of the last ``n`` are kept.

        Raises
        ------
        ParameterError
            ``n_boot`` is below 1.
        """
        if self._counts.shape[1] != n:
            self._counts = resample_counts(n, self._n_boot, np.random.default_rng([self._seed, n]))
        return self._counts


def resampled_sums(values: FloatArray, n_boot: int, rng: np.random.Generator) -> FloatArray:
    """Sum each column of ``values`` over resampled clusters.

    Parameters
    ----------
    values
        One row a cluster, shape (n, columns).
    n_boot
        Number of resamples.
    rng
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        Shape (n_boot, columns).

    Examples
    --------
    >>> resampled_sums(np.ones((4, 1)), 2, np.random.default_rng(0))
    array([[4.],
           [4.]])
    """
    return np.concatenate([counts @ values for counts in _counts_in_parts(len(values), n_boot, rng)])


def _counts_in_parts(n: int, n_boot: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    size = max(1, _CELLS // max(n, 1))
    for done in range(0, max(n_boot, 1), size):  # resample_counts refuses less than 1
        yield resample_counts(n, min(size, n_boot - done), rng)


def percentile_interval(replicates: FloatArray, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Give the percentile bootstrap interval of each column.

    Parameters
    ----------
    replicates
        Shape (n_boot, columns) or (n_boot,); NaN marks a resample in which the statistic does not exist.
    confidence
        Coverage, in (0, 1).

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper bounds, shape (columns,); NaN where no resample has the statistic.

    Raises
    ------
    ParameterError
        ``confidence`` is outside (0, 1).

    Examples
    --------
    >>> low, high = percentile_interval(np.arange(101.0), 0.5)
    >>> float(low), float(high)
    (25.0, 75.0)
    """
    if not 0 < confidence < 1:
        raise ParameterError("confidence", f"is {confidence}", "between 0 and 1, both excluded")
    tail = 50 * (1 - confidence)
    if np.isnan(replicates).any():
        exists = ~np.isnan(replicates).all(axis=0)
        filled = np.where(exists, replicates, 0.0)
        low, high = np.nanpercentile(filled, [tail, 100 - tail], axis=0)
        return np.where(exists, low, np.nan), np.where(exists, high, np.nan)
    low, high = np.percentile(replicates, [tail, 100 - tail], axis=0)
    return low, high
