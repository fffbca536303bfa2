"""Trends of step series whose noise remembers: slope and test, robust against outliers.

Successive steps of a training run are not independent, and a test that takes them for independent finds trends
everywhere. Noise is taken to be autoregressive of order 1 (AR(1)), with a correlation that is estimated from the series
and corrected for its bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]

MOST_POINTS: Final = 200
"""Points of a series after `condense`: pairs of them are compared, and more say no more about a trend."""
_MOST_CORRELATED: Final = 0.98


@dataclass(frozen=True)
class Trend:
    """A monotone trend: Theil-Sen slope per step with its interval, Kendall's tau, and one-sided p of rise and fall."""

    slope: float
    low: float
    high: float
    tau: float
    p_rise: float
    p_fall: float


def condense(steps: FloatArray, values: FloatArray, most: int = MOST_POINTS) -> tuple[FloatArray, FloatArray]:
    """Replace neighbouring values by their medians until at most ``most`` are left.

    Parameters
    ----------
    steps, values
        The series, shape (n,), by step, without NaN.
    most
        Points to keep at most.

    Returns
    -------
    steps, values : numpy.ndarray
        The middle step and the median of blocks of equal size, the last possibly smaller; unchanged when
        ``n <= most``.

    Examples
    --------
    >>> condense(np.arange(6.0), np.array([1.0, 2.0, 9.0, 4.0, 5.0, 0.0]), most=2)
    (array([1., 4.]), array([2., 4.]))
    """
    size = -(-len(values) // most)
    if size <= 1:
        return steps, values
    first = np.arange(0, len(values), size)
    middle = (first + np.append(first[1:], len(values)) - 1) // 2
    medians = [np.median(block) for block in np.split(values, first[1:])]
    return steps[middle], np.array(medians)


def autocorrelation(residuals: FloatArray, n_fitted: int = 2) -> float:
    """Lag-one autocorrelation of what is left after a fit, corrected for the bias of that fit.

    ``(n r + k) / (n - k - 2)``, which undoes ``E[r] = phi - (k + (k + 2) phi) / n`` for k fitted parameters: exact to
    first order for a constant (k = 1) and a line (k = 2), and taken on for more.

    Parameters
    ----------
    residuals
        Shape (n,), by step.
    n_fitted
        Parameters that were fitted.

    Returns
    -------
    float
        In [0, 0.98]; 0 for fewer than ``n_fitted`` + 6 values or for residuals without spread. Negative correlation
        counts as none: it would make tests sharper, on thin evidence.

    References
    ----------
    Kendall (1954), "Note on bias in the estimation of autocorrelation".

    Examples
    --------
    >>> autocorrelation(np.tile([1.0, -1.0], 10)), autocorrelation(np.repeat([1.0, -1.0], 10)) > 0.9
    (0.0, True)
    """
    n = len(residuals)
    centred = residuals - residuals.mean() if n else residuals
    power = float(centred @ centred)
    if n < n_fitted + 6 or power == 0:
        return 0.0
    raw = float(centred[1:] @ centred[:-1]) / power
    return float(np.clip((n * raw + n_fitted) / (n - n_fitted - 2), 0.0, _MOST_CORRELATED))


def mean_inflation(phi: float, n: int) -> float:
    """Variance of the mean of n AR(1) values over that of n independent ones, ``1 + 2 sum_i (1 - i/n) phi^i``.

    Parameters
    ----------
    phi
        Lag-one autocorrelation, in [0, 1).
    n
        Number of values, 1 or more.

    Returns
    -------
    float
        Between 1 and n.

    Examples
    --------
    >>> mean_inflation(0.0, 10), mean_inflation(0.5, 2)
    (1.0, 1.5)
    """
    lags = np.arange(1, n)
    return float(1 + 2 * ((1 - lags / n) * phi**lags).sum())


def kendall_inflation(phi: float, n: int) -> float:
    """Variance of Kendall's S for n AR(1) values over that for independent ones.

    ``1 + 2 / (n (n-1) (n-2)) sum_i (n-i)(n-i-1)(n-i-2) rho_i`` with the autocorrelation of ranks
    ``rho_i = 6/pi arcsin(phi^i / 2)``.

    Parameters
    ----------
    phi
        Lag-one autocorrelation of the values, in [0, 1).
    n
        Number of values, 3 or more.

    Returns
    -------
    float
        1 or more.

    References
    ----------
    Hamed and Rao (1998), "A modified Mann-Kendall trend test for autocorrelated data". They estimate each lag's
    correlation; with an AR(1) model and the bias corrected the test keeps its level better (docs/diagnosis.md).

    Examples
    --------
    >>> kendall_inflation(0.0, 10)
    1.0
    """
    lags = np.arange(1, n - 2)
    ranks = 6 / np.pi * np.arcsin(phi**lags / 2)
    return float(1 + 2 / (n * (n - 1) * (n - 2)) * ((n - lags) * (n - lags - 1) * (n - lags - 2) * ranks).sum())


def trend(steps: FloatArray, values: FloatArray, confidence: float = 0.95) -> Trend:
    """Theil-Sen slope and Mann-Kendall test, both corrected for autocorrelation.

    The slope is the median over all pairs; its interval and the test come from the variance of Kendall's S, inflated by
    `kendall_inflation`. Long series are condensed first.

    Parameters
    ----------
    steps, values
        The series, shape (n,), steps rising, values without NaN.
    confidence
        Coverage of the slope's interval, in (0, 1).

    Returns
    -------
    Trend
        ``p_rise`` is small where values rise, ``p_fall`` where they fall; both 1 and the slope 0 for constant values.

    Raises
    ------
    ParameterError
        Fewer than 4 values, or ``confidence`` outside (0, 1).

    References
    ----------
    Sen (1968), "Estimates of the regression coefficient based on Kendall's tau"; Mann (1945); Kendall (1975).

    Examples
    --------
    >>> found = trend(np.arange(8.0), np.array([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 99.0]))
    >>> found.slope, found.tau, found.p_rise < 0.01, found.p_fall > 0.99
    (2.0, 1.0, True, True)
    """
    if len(values) < 4:
        raise ParameterError("values", f"are {len(values)}", "4 or more")
    if not 0 < confidence < 1:
        raise ParameterError("confidence", f"is {confidence}", "between 0 and 1, both excluded")
    steps, values = condense(steps, values)
    n = len(values)
    first, second = np.triu_indices(n, 1)
    slopes = np.sort((values[second] - values[first]) / (steps[second] - steps[first]))
    slope = float(np.median(slopes))
    inflation = kendall_inflation(autocorrelation(values - slope * steps), n)
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18 * inflation
    score = float(np.sign(slopes).sum())
    spread = float(np.sqrt(max(variance, 0.0)))
    reach = ndtri(0.5 + confidence / 2) * spread
    below, above = (len(slopes) - reach) / 2, (len(slopes) + reach) / 2
    low = slopes[max(0, round(below) - 1)] if spread else slope
    high = slopes[min(len(slopes) - 1, round(above))] if spread else slope
    # The continuity correction moves S one towards 0.
    p_rise, p_fall = (ndtr((1 - sign * score) / spread) if spread else 1.0 for sign in (1, -1))
    return Trend(slope, float(low), float(high), score / len(slopes), float(p_rise), float(p_fall))
