"""Levels of step series whose noise remembers, and differences between stretches of them: medians with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.special import ndtri

from entropy_lab.errors import ParameterError
from entropy_lab.trends import autocorrelation, mean_inflation

FloatArray = NDArray[np.float64]

_MAD_TO_SD: Final = 1.4826
_MEDIAN_FACTOR: Final = np.pi / 2
"""Variance of the median of normal values over that of their mean."""


@dataclass(frozen=True)
class Level:
    """Median of a series, with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Contrast:
    """Medians of a series' first and last values, and their difference ``end - start`` with its interval."""

    start: float
    end: float
    difference: float
    low: float
    high: float


def level(values: FloatArray, confidence: float = 0.95) -> Level:
    """Median of a series with an interval that knows of autocorrelation.

    The noise is what a running median leaves, as in `contrast`: the interval says how well the median of a smooth path
    is known, not how far the path itself goes.

    Parameters
    ----------
    values
        Shape (n,), by step, without NaN.
    confidence
        Coverage of the interval, in (0, 1).

    Returns
    -------
    Level
        The interval is a point where more than half of the values lie on their running median.

    Raises
    ------
    ParameterError
        No value, or ``confidence`` outside (0, 1).

    Examples
    --------
    >>> found = level(np.append(np.tile([1.0, 2.0, 3.0], 10), 99.0))
    >>> found.value, 1 < found.low < 2 < found.high < 3
    (2.0, True)
    """
    _require(len(values) >= 1, "values", "are none", "1 or more")
    _require(0 < confidence < 1, "confidence", f"is {confidence}", "between 0 and 1, both excluded")
    middle = float(np.median(values))
    scale, phi = _noise(values)
    variance = _MEDIAN_FACTOR * scale**2 / len(values) * mean_inflation(phi, len(values))
    reach = float(ndtri(0.5 + confidence / 2)) * variance**0.5
    return Level(middle, middle - reach, middle + reach)


def contrast(values: FloatArray, head: float = 0.1, tail: float = 0.1, confidence: float = 0.95) -> Contrast:
    """Compare the last values of a series with its first.

    The noise is what a running median leaves, its scale from the median absolute deviation; the variance of each
    end's median is inflated by `mean_inflation`. The interval is that of noise about a smooth path: whether the path
    would have wandered as far without a cause is no question of one series.

    Parameters
    ----------
    values
        Shape (n,), by step, without NaN.
    head, tail
        Shares of the values that make up the ends, at least 3 values each.
    confidence
        Coverage of the interval, in (0, 1).

    Returns
    -------
    Contrast
        Medians of the ends and their difference.

    Raises
    ------
    ParameterError
        Fewer than 6 values, or a parameter outside (0, 1) (shares up to 0.5).

    Examples
    --------
    >>> found = contrast(np.array([1.0, 1.1, 0.9, 1.0, 2.0, 3.0, 2.9, 3.1]))
    >>> found.start, found.end, found.low < 1.9 < found.high
    (1.0, 3.0, True)
    """
    n = len(values)
    _require(n >= 6, "values", f"are {n}", "6 or more")
    for name, share in (("head", head), ("tail", tail)):
        _require(0 < share <= 0.5, name, f"is {share}", "above 0, at most 0.5")
    first, last = (max(3, round(share * n)) for share in (head, tail))
    return contrast_between(values, slice(0, first), slice(n - last, n), confidence)


def contrast_between(values: FloatArray, first: slice, last: slice, confidence: float = 0.95) -> Contrast:
    """Compare two stretches of a series, as `contrast` compares its ends.

    Parameters
    ----------
    values
        Shape (n,), by step, without NaN.
    first, last
        The stretches, of one value or more each.
    confidence
        Coverage of the interval, in (0, 1).

    Returns
    -------
    Contrast
        Medians of the stretches and their difference.

    Raises
    ------
    ParameterError
        A stretch is empty, or ``confidence`` is outside (0, 1).

    Examples
    --------
    >>> contrast_between(np.array([1.0, 1.0, 1.0, 5.0, 1.0]), slice(0, 2), slice(3, 4)).difference
    4.0
    """
    _require(0 < confidence < 1, "confidence", f"is {confidence}", "between 0 and 1, both excluded")
    parts = values[first], values[last]
    _require(min(map(len, parts)) > 0, "first, last", "hold no value", "stretches of one value or more")
    start, end = (float(np.median(part)) for part in parts)
    scale, phi = _noise(values)
    variance = _MEDIAN_FACTOR * scale**2 * sum(mean_inflation(phi, len(part)) / len(part) for part in parts)
    reach = float(ndtri(0.5 + confidence / 2)) * variance**0.5
    return Contrast(start, end, end - start, end - start - reach, end - start + reach)


def running_median(values: FloatArray, window: int) -> FloatArray:
    """Median over a window centred on each value; at the ends over what there is of it.

    Parameters
    ----------
    values
        Shape (n,).
    window
        Values in the window; an even number counts as the next odd one.

    Returns
    -------
    numpy.ndarray
        Shape (n,).

    Examples
    --------
    >>> running_median(np.array([1.0, 9.0, 2.0, 3.0, 4.0]), 3)
    array([5. , 2. , 3. , 3. , 3.5])
    """
    n, half = len(values), window // 2
    medians = np.empty(n)
    if n > 2 * half:
        medians[half : n - half] = median_filter(values, 2 * half + 1)[half : n - half]
    for i in (*range(min(half, n)), *range(max(half, n - half), n)):
        medians[i] = np.median(values[max(0, i - half) : i + half + 1])
    return medians


def _noise(values: FloatArray) -> tuple[float, float]:
    """Give the standard deviation and lag-one autocorrelation of what a running median leaves."""
    window = max(7, len(values) // 5)
    noise = values - running_median(values, window)
    # A median over few values follows each of them.
    scale = _MAD_TO_SD * float(np.median(np.abs(noise))) * window / (window - 1)
    return scale, autocorrelation(noise)


def _require(fine: bool, where: str, wrong: str, allowed: str) -> None:
    if not fine:
        raise ParameterError(where, wrong, allowed)
