"""The entropy change that advantages press for on given rollouts, to first order, and relative to the gradient's size.

The change is linear in the advantages. Those of groups with verdicts have two values, A+ and A-, and a constant added
to both moves nothing to first order; so all that a group contributes is one number, the change per unit of A+ - A-,
and sums of it over groups with equal counts are enough for any estimator that depends on the counts alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.advantages.outcomes import beta_advantages
from entropy_lab.bootstrap import percentile_interval
from entropy_lab.json_values import json_value

FloatArray = NDArray[np.float64]
_ABOVE_0: Final = 1e-9


@dataclass(frozen=True)
class Pressure:
    """Pressure on entropy of some points, on the rollouts and on resamples of them.

    Parameters
    ----------
    change
        Entropy change per unit of step, any shape; by convention the first axis holds resamples.
    mean_square
        Mean square of the advantages over response tokens, same shape. Where the score functions of different tokens
        are about orthogonal it is the mean square of the gradient, up to a factor that all points share.

    Examples
    --------
    >>> parts = Pressure(np.array([-0.2]), np.array([3.0])) + Pressure(np.array([-0.1]), np.array([1.0]))
    >>> parts.per_rms
    array([-0.15])
    """

    change: FloatArray
    mean_square: FloatArray

    def __add__(self, other: Pressure) -> Pressure:
        return Pressure(self.change + other.change, self.mean_square + other.mean_square)

    def flat(self) -> Pressure:
        """Lay all points side by side, shape (resamples, points)."""
        return Pressure(*(values.reshape(len(values), -1) for values in (self.change, self.mean_square)))

    def beside(self, other: Pressure) -> Pressure:
        """Add the points of another, both of shape (resamples, points)."""
        pairs = ((self.change, other.change), (self.mean_square, other.mean_square))
        return Pressure(*(np.concatenate(pair, axis=1) for pair in pairs))

    @property
    def rms(self) -> FloatArray:
        """Root mean square of the advantages."""
        return np.sqrt(self.mean_square)

    @property
    def per_rms(self) -> FloatArray:
        """Change per unit of step and of root mean square advantage; NaN where every advantage is 0."""
        nothing: FloatArray = np.full(np.shape(self.change), np.nan)
        return np.divide(self.change, self.rms, out=nothing, where=self.mean_square > 0)


@dataclass(frozen=True)
class CellSums:
    """Sums over the groups with equal counts: enough for the pressure at every (beta_pos, beta_neg).

    Parameters
    ----------
    n_correct, n_rollouts
        Correct and all verified rollouts of a cell's groups, shape (cells,).
    effect
        Entropy change per unit of A+ - A-, summed over groups, shape (resamples, cells).
    tokens_correct, tokens_wrong
        Response tokens, shape (resamples, cells).
    weight
        What sums of effects are divided by (number of groups, or of tokens), shape (resamples,).

    Examples
    --------
    Two groups of 4, one correct of each:

    >>> one = np.ones((1, 1))
    >>> sums = CellSums(np.array([1.0]), np.array([4.0]), -0.5 * one, 20 * one, 60 * one, np.array([2.0]))
    >>> sums.at(np.array([0.0, 1.0]), np.array([0.0])).change.ravel()
    array([-0.5, -1. ])
    """

    n_correct: FloatArray
    n_rollouts: FloatArray
    effect: FloatArray
    tokens_correct: FloatArray
    tokens_wrong: FloatArray
    weight: FloatArray

    def of(self, positive: FloatArray, negative: FloatArray) -> Pressure:
        """Give the pressure of advantages that are known by cell.

        Parameters
        ----------
        positive, negative
            A+ and A- of each cell, shape (estimators, cells).

        Returns
        -------
        Pressure
            Shape (resamples, estimators); NaN where a resample has no group with a part.

        Examples
        --------
        >>> one = np.ones((1, 1))
        >>> sums = CellSums(np.array([1.0]), np.array([4.0]), -0.5 * one, 20 * one, 60 * one, np.array([2.0]))
        >>> sums.of(np.array([[3.0]]), np.array([[-1.0]])).change
        array([[-1.]])
        """
        square = self.tokens_correct @ (positive**2).T + self.tokens_wrong @ (negative**2).T
        tokens = (self.tokens_correct + self.tokens_wrong).sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):  # resamples that draw no prompt with a part
            return Pressure(self.effect @ (positive - negative).T / self.weight[:, None], square / tokens)

    def at(self, beta_pos: FloatArray, beta_neg: FloatArray) -> Pressure:
        """Give the pressure at every pair of exponents.

        The channels add up: ``Σ effect (A+ - A-) / weight`` and ``Σ (A+² tokens_correct + A-² tokens_wrong) / tokens``.

        Parameters
        ----------
        beta_pos, beta_neg
            Exponents, non-negative, shape (P,) and (N,).

        Returns
        -------
        Pressure
            Arrays of shape (resamples, P, N).
        """
        positive, _ = beta_advantages(beta_pos, self.n_correct, self.n_rollouts)
        _, negative = beta_advantages(beta_neg, self.n_correct, self.n_rollouts)
        tokens = (self.tokens_correct + self.tokens_wrong).sum(axis=1, keepdims=True)
        weight = self.weight[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may draw prompts without such groups alone
            raised = Pressure(self.effect @ positive / weight, self.tokens_correct @ positive**2 / tokens)
            lowered = Pressure(-self.effect @ negative / weight, self.tokens_wrong @ negative**2 / tokens)
        return Pressure(raised.change[:, :, None], raised.mean_square[:, :, None]) + Pressure(
            lowered.change[:, None, :], lowered.mean_square[:, None, :]
        )

    def slope(self, beta_pos: float, beta_neg: float, width: float = 1e-3) -> FloatArray:
        """Slope of the pressure per root mean square advantage, by differences.

        Where an exponent leaves 0, groups of equal outcomes lose their advantage at once: there the slope is that just
        above 0, without this jump.

        Parameters
        ----------
        beta_pos, beta_neg
            Where.
        width
            Distance of the exponents that are compared from it.

        Returns
        -------
        numpy.ndarray
            By beta_pos and by beta_neg, shape (resamples, 2). Entropy is held better in its direction.

        Examples
        --------
        A group of 2 of 4 has the same advantages at all exponents:

        >>> one = np.ones((1, 1))
        >>> CellSums(np.array([2.0]), np.array([4.0]), one, one, one, one[0]).slope(0.5, 0.5)
        array([[0., 0.]])
        """
        ends = [np.array([max(beta - width, _ABOVE_0), beta + width]) for beta in (beta_pos, beta_neg)]
        rows = self.at(ends[0], np.array([beta_neg])).per_rms[:, :, 0]
        columns = self.at(np.array([beta_pos]), ends[1]).per_rms[:, 0, :]
        return np.stack([np.diff(rows)[:, 0] / np.ptp(ends[0]), np.diff(columns)[:, 0] / np.ptp(ends[1])], axis=1)


def angles(direction: FloatArray) -> FloatArray:
    """Turn directions in the beta plane into degrees: 0 raises beta_pos, 90 raises beta_neg.

    Parameters
    ----------
    direction
        Shape (resamples, 2). The first row is the estimate, the others are resamples of it.

    Returns
    -------
    numpy.ndarray
        Shape (resamples,). The first is in (-180, 180]; the others within half a turn of it, so that their
        percentiles make sense.

    Examples
    --------
    >>> angles(np.array([[-1.0, 0.1], [-1.0, -0.1], [0.0, 1.0]])).round(1)
    array([174.3, 185.7,  90. ])
    """
    degrees = np.degrees(np.arctan2(direction[:, 1], direction[:, 0]))
    turned: FloatArray = degrees[:1] + (degrees - degrees[:1] + 180) % 360 - 180
    return turned


def steepest(plane: CellSums, at: tuple[float, float], confidence: float = 0.95) -> dict[str, dict[str, Any] | None]:
    """Find the direction in the beta plane in which the pressure per root mean square advantage rises most.

    Parameters
    ----------
    plane
        Sums whose first row is the estimate and whose others are resamples.
    at
        Exponents (beta_pos, beta_neg) where.
    confidence
        Coverage of the interval of the angle.

    Returns
    -------
    dict
        ``direction``: beta_pos, beta_neg (where), d_beta_pos, d_beta_neg (of length 1, along both axes), degrees
        (0 raises beta_pos, 90 raises beta_neg) with low and high, and slope (of per_rms, per unit of exponent). At an
        exponent of 0 the direction may point out of the plane; then the other exponent alone can follow it. None where
        the pressure is the same around there, or not defined.

    Examples
    --------
    Where groups of 3 of 4 press most, weaker advantages of their wrong rollouts press less per gradient:

    >>> two = np.ones((2, 2))
    >>> tokens = 20 * np.array([[1.0, 3.0]] * 2), 20 * np.array([[3.0, 1.0]] * 2)
    >>> plane = CellSums(np.array([1.0, 3.0]), np.array([4.0, 4.0]), -two * (0.1, 0.9), *tokens, two.sum(axis=1))
    >>> found = steepest(plane, (0.5, 0.5))["direction"]
    >>> round(found["degrees"]), round(found["low"]), found["d_beta_neg"] < 0 < found["d_beta_pos"]
    (-45, -45, True)
    """
    slope = plane.slope(*at)
    length = float(np.hypot(*slope[0]))
    if not length > 0:
        return {"direction": None}
    along, turned = (slope[0] / length).tolist(), angles(slope)
    low, high = percentile_interval(turned[1:], confidence)
    found = {"beta_pos": at[0], "beta_neg": at[1], "d_beta_pos": along[0], "d_beta_neg": along[1], "slope": length}
    ends = {"degrees": turned[0], "low": low, "high": high}
    return {"direction": found | {name: json_value(value) for name, value in ends.items()}}


def extremes(betas: FloatArray, per_rms: FloatArray, at: tuple[float, float]) -> dict[str, dict[str, Any] | None]:
    """Find where on a map entropy is held: the nearest pair without pressure to lower it, and the best of all.

    Parameters
    ----------
    betas
        Exponents of either axis, shape (B,).
    per_rms
        Pressure per root mean square advantage by (beta_pos, beta_neg), shape (B * B,), row by row.
    at
        Exponents that ``nearest`` is meant from.

    Returns
    -------
    dict
        ``holding``: beta_pos, beta_neg and per_rms of the nearest pair with 0 or more, None without one; ``highest``:
        those of the greatest per_rms.

    Examples
    --------
    >>> extremes(np.array([0.0, 1.0]), np.array([-0.3, -0.4, -0.1, -0.2]), (0.5, 0.5))["highest"]
    {'beta_pos': 1.0, 'beta_neg': 0.0, 'per_rms': -0.1}
    """
    pairs = np.stack([beta.ravel() for beta in np.meshgrid(betas, betas, indexing="ij")], axis=1)
    distance = np.where(per_rms >= 0, np.hypot(*(pairs - at).T), np.inf)

    def pair(index: int) -> dict[str, Any]:
        beta_pos, beta_neg = pairs[index].tolist()
        return {"beta_pos": beta_pos, "beta_neg": beta_neg, "per_rms": json_value(per_rms[index])}

    holding = pair(int(distance.argmin())) if np.isfinite(distance).any() else None
    return {"holding": holding, "highest": pair(int(np.nan_to_num(per_rms, nan=-np.inf).argmax()))}
