"""Intervals of a mean over few seeds.

A percentile interval cannot serve here: it lies between the smallest and the largest of the n values, and that range
holds the mean of a symmetric distribution with probability ``1 - 2**(1 - n)`` only, 75 % for three seeds and 94 % for
five. ``docs/claims.md`` has the measured coverage of the alternatives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from entropy_lab.bootstrap import resample_counts
from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]


def student_interval(values: FloatArray, confidence: float = 0.95) -> Interval:
    """Interval of a mean by Student's t: ``mean ± t sd / sqrt(n)``.

    Parameters
    ----------
    values
        Shape (n,).
    confidence
        Coverage, in (0, 1).

    Returns
    -------
    low, high : float
        NaN when n < 2.

    Raises
    ------
    ParameterError
        ``confidence`` is outside (0, 1).

    Examples
    --------
    >>> [round(bound, 3) for bound in student_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.484, 4.484]
    """
    tail = _tail(confidence)
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    half = stats.t.isf(tail, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def bootstrap_t_interval(
    values: FloatArray, confidence: float = 0.95, *, n_boot: int = 10_000, rng: np.random.Generator
) -> Interval:
    """Studentised bootstrap interval of a mean (bootstrap-t).

    Seeds are drawn with replacement; ``t* = (mean* - mean) / se*`` takes the place of Student's t:
    ``[mean - t*(1 - tail) se, mean - t*(tail) se]`` with the quantiles of t*.

    Parameters
    ----------
    values
        Shape (n,).
    confidence
        Coverage, in (0, 1).
    n_boot
        Number of resamples.
    rng
        Source of randomness.

    Returns
    -------
    low, high : float
        NaN when n < 2; the mean itself when the values do not spread. A resample of equal values has ``t* = ±inf``;
        a bound is infinite where those are more than a tail, as with three values always: three values cannot bound
        their mean without a model.

    Raises
    ------
    ParameterError
        ``confidence`` is outside (0, 1), or ``n_boot`` is below 1.

    References
    ----------
    Efron & Tibshirani (1993), "An Introduction to the Bootstrap", section 12.5.

    Examples
    --------
    >>> low, high = bootstrap_t_interval(np.array([4.0, 5.0, 6.0, 7.0, 8.0]), rng=np.random.default_rng(0))
    >>> bool(low < 4 and high > 8)
    True
    """
    tail = _tail(confidence)
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    mean, se = float(np.mean(values)), float(np.std(values, ddof=1)) / np.sqrt(n)
    if not se > 0:
        return mean, mean
    counts = resample_counts(n, n_boot, rng)
    centred = (values - mean) / (se * np.sqrt(n))
    shift = counts @ centred / n
    variance = (counts @ centred**2 / n - shift**2) / (n - 1)
    spread = variance > 1e-12  # below is rounding: all drawn values are equal
    limit = np.where(np.abs(shift) > 1e-12, np.copysign(np.inf, shift), 0.0)
    t = np.divide(shift, np.sqrt(np.where(spread, variance, 1.0)), out=limit, where=spread)
    quantiles = np.quantile(t, [1 - tail, tail], method="inverted_cdf")
    low, high = mean - quantiles * se
    return float(low), float(high)


def mean_interval(
    values: FloatArray, confidence: float = 0.95, *, n_boot: int = 10_000, rng: np.random.Generator
) -> tuple[float, float, str]:
    """Interval of a mean: by bootstrap-t where that is bounded, else by Student's t.

    Parameters
    ----------
    values, confidence, n_boot, rng
        As in `bootstrap_t_interval`.

    Returns
    -------
    low, high : float
        NaN when n < 2.
    kind : str
        ``"bootstrap-t"`` or ``"Student t"``, which it is for three values and fewer; empty without an interval.

    Raises
    ------
    ParameterError
        As in `bootstrap_t_interval`.

    Examples
    --------
    >>> mean_interval(np.array([1.0, 2.0, 3.0]), rng=np.random.default_rng(0))[2]
    'Student t'
    """
    low, high = bootstrap_t_interval(values, confidence, n_boot=n_boot, rng=rng)
    if np.isfinite([low, high]).all():
        return low, high, "bootstrap-t"
    return *student_interval(values, confidence), "Student t" if len(values) > 1 else ""


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ParameterError("confidence", f"is {confidence}", "between 0 and 1, both excluded")
    return (1 - confidence) / 2
