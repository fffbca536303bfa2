"""Where a step series changes: a bend of its line or a jump of its level, with an interval and a test that it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri

from entropy_lab.errors import ParameterError
from entropy_lab.trends import autocorrelation, condense, mean_inflation

FloatArray = NDArray[np.float64]

LEAST_POINTS: Final = 8
"""Fewest points in which a change is looked for."""
_WARM: Final = 60
"""Values of a simulated AR(1) series that are thrown away, so that it does not start at 0."""


@dataclass(frozen=True)
class ChangePoint:
    """A change: where, what around it, and how sure.

    Attributes
    ----------
    step, low, high
        Its step, with an interval.
    before, after
        Slopes per step (of a bend), or levels (of a jump).
    p
        Probability of as good a fit without a change.
    error
        Sum of squares that the fit leaves.
    """

    step: float
    low: float
    high: float
    before: float
    after: float
    p: float
    error: float


def bend(
    steps: FloatArray, values: FloatArray, rng: np.random.Generator, *, n_boot: int = 199, confidence: float = 0.95
) -> ChangePoint:
    """Fit a line with one knot, ``a + b t + c max(t - knot, 0)``, and test ``c = 0``.

    The knot is searched among the points, two off each end, by least squares. The test statistic is the largest
    reduction of the squared error, and its null distribution that of straight lines with AR(1) noise as correlated
    as what the broken line leaves: what is left of a straight line would take a change for memory. Strong memory in
    few points makes the test liberal (docs/diagnosis.md). The interval holds every knot that a likelihood-ratio test
    does not refuse, its degrees of freedom reduced by that autocorrelation.

    Parameters
    ----------
    steps, values
        The series, shape (n,), steps rising, values without NaN; condensed first when long.
    rng
        Source of randomness of the test.
    n_boot
        Simulated series of the test.
    confidence
        Coverage of the knot's interval, in (0, 1).

    Returns
    -------
    ChangePoint
        ``before`` and ``after`` are slopes per step. ``p`` is at least ``1 / (n_boot + 1)``; 1 where a straight line
        fits exactly.

    Raises
    ------
    ParameterError
        Fewer than 8 values, or a parameter out of range.

    References
    ----------
    Hinkley (1971), "Inference in two-phase regression"; Andrews (1993) for the test over an unknown change point.

    Examples
    --------
    >>> t = np.arange(20.0)
    >>> found = bend(t, np.maximum(t - 12, 0), np.random.default_rng(0))
    >>> found.step, round(found.before, 9), round(found.after, 9), found.p
    (12.0, 0.0, 1.0, 0.005)
    """
    t, y = _checked(steps, values, n_boot, confidence)
    line = np.column_stack([np.ones_like(t), t])
    added = np.maximum(t[:, None] - t[None, 2:-2], 0.0)
    coefficients, found = _fit(line, added, y, rng, n_boot, confidence)
    first, last, best = (float(t[2:-2][index]) for index in found.indices)
    return ChangePoint(best, first, last, coefficients[1], coefficients[1] + coefficients[2], found.p, found.error)


def jump(
    steps: FloatArray, values: FloatArray, rng: np.random.Generator, *, n_boot: int = 199, confidence: float = 0.95
) -> ChangePoint:
    """Fit a level with one jump, ``a + c [t >= step]``, and test ``c = 0``.

    As `bend`, with a constant in place of the straight line.

    Parameters
    ----------
    steps, values
        The series, shape (n,), steps rising, values without NaN; condensed first when long.
    rng
        Source of randomness of the test.
    n_boot
        Simulated series of the test.
    confidence
        Coverage of the interval, in (0, 1).

    Returns
    -------
    ChangePoint
        ``before`` and ``after`` are levels; ``step`` is the first with the new one.

    Raises
    ------
    ParameterError
        As `bend`.

    References
    ----------
    Hawkins (1977), "Testing a sequence of observations for a shift in location".

    Examples
    --------
    >>> t = np.arange(20.0)
    >>> found = jump(t, np.where(t < 7, 1.0, 3.0), np.random.default_rng(0))
    >>> found.step, found.low, found.high, round(found.before, 9), round(found.after, 9), found.p
    (7.0, 7.0, 7.0, 1.0, 3.0, 0.005)
    """
    t, y = _checked(steps, values, n_boot, confidence)
    added = (t[:, None] >= t[None, 2:-2]).astype(np.float64)
    coefficients, found = _fit(np.ones((len(t), 1)), added, y, rng, n_boot, confidence)
    first, last, best = (float(t[2:-2][index]) for index in found.indices)
    return ChangePoint(best, first, last, coefficients[0], coefficients[0] + coefficients[1], found.p, found.error)


def _checked(steps: FloatArray, values: FloatArray, n_boot: int, confidence: float) -> tuple[FloatArray, FloatArray]:
    if len(values) < LEAST_POINTS:
        raise ParameterError("values", f"are {len(values)}", f"{LEAST_POINTS} or more")
    if n_boot < 1:
        raise ParameterError("n_boot", f"is {n_boot}", "1 or more")
    if not 0 < confidence < 1:
        raise ParameterError("confidence", f"is {confidence}", "between 0 and 1, both excluded")
    return condense(steps, values)


@dataclass(frozen=True)
class _Found:
    """First and last candidate that is not refused, the best one, p of none, and the squared error left."""

    indices: tuple[int, int, int]
    p: float
    error: float


def _fit(
    plain: FloatArray, added: FloatArray, y: FloatArray, rng: np.random.Generator, n_boot: int, confidence: float
) -> tuple[list[float], _Found]:
    """Fit the plain columns (n, c) with the best one of the added (n, k); coefficients of those c + 1."""
    base, _ = np.linalg.qr(plain)
    directions = added - base @ (base.T @ added)
    directions /= np.linalg.norm(directions, axis=0)
    left = y - base @ (base.T @ y)
    error = float(left @ left)
    gains = (directions.T @ left) ** 2
    best = int(gains.argmax())
    coefficients = np.linalg.lstsq(np.column_stack([plain, added[:, best]]), y, rcond=None)[0].tolist()
    if error <= 1e-20 * float(y @ y):
        return [*coefficients[:-1], 0.0], _Found((0, added.shape[1] - 1, best), 1.0, error)
    residuals = left - directions[:, best] * (directions[:, best] @ left)
    n_fitted = plain.shape[1] + 2
    phi = autocorrelation(residuals, n_fitted)
    freedom = max((len(y) - n_fitted) / mean_inflation(phi, len(y)), 1.0)
    allowed = (error - gains[best]) * (1 + fdtri(1, freedom, confidence) / freedom)
    inside = np.flatnonzero(error - gains <= allowed + 1e-12 * error)
    p = _p_of_none(base, directions, gains[best] / error, phi, n_boot, rng)
    return coefficients, _Found((int(inside[0]), int(inside[-1]), best), p, float(error - gains[best]))


def _p_of_none(
    base: FloatArray, directions: FloatArray, share: float, phi: float, n_boot: int, rng: np.random.Generator
) -> float:
    """Share of unchanged series with AR(1) noise whose best change removes as large a share of the squared error."""
    noise = rng.normal(size=(len(base) + _WARM, n_boot))
    for now in range(1, len(noise)):
        noise[now] += phi * noise[now - 1]
    noise = noise[_WARM:]
    noise -= base @ (base.T @ noise)
    shares = ((directions.T @ noise) ** 2).max(axis=0) / (noise**2).sum(axis=0)
    return float((1 + np.count_nonzero(shares >= share)) / (n_boot + 1))
