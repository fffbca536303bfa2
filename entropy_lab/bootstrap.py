"""Cluster bootstrap of ratios of sums: the intervals of every analysis.

Tokens of a response and rollouts of a group depend on each other, so what is resampled is whole prompts (or problems).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]
TOGETHER: Final = 16
"""Steps that are resampled by one product of matrices: more fill memory, fewer wait for it."""
_CELLS: Final = 250_000
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


class RatioIntervals:
    """Percentile intervals of a ratio of sums over clusters, for many steps; steps are resampled together.

    Parameters
    ----------
    n_boot, confidence, seed
        Resamples, coverage in (0, 1) and seed.

    Examples
    --------
    >>> intervals = RatioIntervals(n_boot=100)
    >>> intervals.add(np.array([2.0, 4.0]), np.array([1.0, 2.0]))
    >>> intervals.add(np.array([2.0]), np.array([1.0]))
    >>> intervals.bounds()
    (array([ 2., nan]), array([ 2., nan]))
    """

    def __init__(self, n_boot: int = 1000, confidence: float = 0.95, seed: int = 0) -> None:
        self._confidence, self._draws = confidence, Draws(n_boot, seed)
        self._waiting: list[FloatArray] = []
        self._found: list[FloatArray] = []

    def add(self, above: FloatArray, below: FloatArray) -> None:
        """Take the next step.

        Parameters
        ----------
        above, below
            Sums of each cluster, shape (clusters,), ``below`` above 0.
        """
        if self._waiting and (len(self._waiting[0]) != len(above) or len(self._waiting) == TOGETHER):
            self._settle()
        self._waiting.append(np.column_stack([above, below]))

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Give lower and upper bounds of all steps, shape (steps,); NaN where a step has fewer than two clusters."""
        self._settle()
        low, high = np.concatenate([np.zeros((2, 0)), *self._found], axis=1)
        return low, high

    def _settle(self) -> None:
        if not self._waiting:
            return
        if (n := len(self._waiting[0])) < 2:
            self._found.append(np.full((2, len(self._waiting)), np.nan))
        else:
            sums = self._draws.counts(n) @ np.concatenate(self._waiting, axis=1)
            self._found.append(np.stack(percentile_interval(sums[:, ::2] / sums[:, 1::2], self._confidence)))
        self._waiting = []


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
