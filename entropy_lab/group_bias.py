"""What a group of G rollouts makes of an estimator: its expected gradient masses against those at the true accuracy."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, betaln, gammaln, xlog1py, xlogy

from entropy_lab.advantages import Estimator
from entropy_lab.advantages.outcomes import advantages_by_outcome, exponents

FloatArray = NDArray[np.float64]

LIMIT: Final = 256
"""Rollouts that stand for infinitely many, where an estimator has no closed form."""
N_POINTS: Final = 200


def binomial(p: FloatArray, n: int) -> FloatArray:
    """Probabilities of c correct rollouts of n.

    Parameters
    ----------
    p
        Accuracies in [0, 1], shape (points,).
    n
        Rollouts.

    Returns
    -------
    numpy.ndarray
        Shape (points, n + 1); rows sum to 1.

    Examples
    --------
    >>> binomial(np.array([0.0, 0.5]), 2).round(9)
    array([[1.  , 0.  , 0.  ],
           [0.25, 0.5 , 0.25]])
    """
    c = np.arange(n + 1.0)
    ways = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    p = p[:, None]
    probability: FloatArray = np.exp(ways + xlogy(c, p) + xlog1py(n - c, -p))
    return probability


def beta_binomial(c: FloatArray, n: FloatArray, mean: FloatArray, strength: FloatArray) -> FloatArray:
    """Probability of c correct rollouts of n for prompts whose true accuracies follow a Beta distribution.

    Parameters
    ----------
    c, n
        Shape (cells,).
    mean, strength
        Mean and a + b, shape (resamples,); 0 and infinity as in `entropy_lab.solve_rates.accuracy_spread`.

    Returns
    -------
    numpy.ndarray
        Shape (resamples, cells); NaN where the strength is.

    Examples
    --------
    Strength 2 around 1/2 is the uniform distribution: all counts are equally likely.

    >>> beta_binomial(np.arange(4.0), np.full(4, 3.0), np.array([0.5]), np.array([2.0])).round(6)
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    ways = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    mean, strength = mean[:, None], strength[:, None]
    usual = np.isfinite(strength) & (strength > 0)
    s = np.where(usual, strength, 1.0)
    a, b = np.maximum(mean * s, 1e-300), np.maximum((1 - mean) * s, 1e-300)
    spread = np.exp(ways + betaln(a + c, b + n - c) - betaln(a, b))
    single = np.exp(ways + xlogy(c, mean) + xlog1py(n - c, -mean))
    polarised = np.where(c == n, mean, 0.0) + np.where(c == 0, 1 - mean, 0.0)
    found = np.where(usual, spread, np.where(strength == 0, polarised, single))
    return np.where(np.isnan(strength), np.nan, found)


def posterior(
    c: FloatArray, n: FloatArray, mean: float, strength: float, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Tell a prompt's true accuracy after c correct rollouts of n: mean and central credible interval.

    ``Beta(a + c, b + n - c)`` with the fitted a and b as the prior.

    Parameters
    ----------
    c, n
        Shape (cells,).
    mean, strength
        Of the prior.
    confidence
        Coverage of the interval.

    Returns
    -------
    tuple of numpy.ndarray
        Mean, lower and upper bound, shape (cells,); NaN where the strength is.

    Examples
    --------
    >>> [round(float(value[0]), 3) for value in posterior(np.array([8.0]), np.array([8.0]), 0.5, 2.0)]
    [0.9, 0.664, 0.997]
    """
    if np.isinf(strength) or np.isnan(strength):
        alone = np.full(len(c), mean if np.isinf(strength) else np.nan)
        return alone, alone, alone
    a, b = mean * strength + c, (1 - mean) * strength + n - c
    tail = (1 - confidence) / 2
    sure = (a <= 0) | (b <= 0)  # without a spread of its own, a solved prompt is always solved
    a_known, b_known = np.where(sure, 1.0, a), np.where(sure, 1.0, b)
    low, high = (np.where(sure, c / n, betaincinv(a_known, b_known, level)) for level in (tail, 1 - tail))
    return a / (a + b), low, high


def accuracy_points(mean: float, strength: float) -> tuple[FloatArray, FloatArray]:
    """Points that stand for the fitted distribution of true accuracies.

    Parameters
    ----------
    mean, strength
        As for `posterior`.

    Returns
    -------
    points, weights : numpy.ndarray
        Shape (points,); weights sum to 1. Quantiles in the middle of equal parts of the distribution.

    Examples
    --------
    >>> points, weights = accuracy_points(0.5, 2.0)
    >>> float(points[0]), round(float(weights @ points**2), 4)  # of the uniform distribution: 1/3
    (0.0025, 0.3333)
    """
    if np.isinf(strength):
        return np.array([mean]), np.ones(1)
    if strength == 0:
        return np.array([0.0, 1.0]), np.array([1 - mean, mean])
    levels = (np.arange(N_POINTS) + 0.5) / N_POINTS
    points = betaincinv(mean * strength, (1 - mean) * strength, levels)
    return points, np.full(N_POINTS, 1 / N_POINTS)


def expected_masses(estimator: Estimator, p: FloatArray, size: int, batch_mean: float) -> tuple[FloatArray, FloatArray]:
    """Sum over all counts what groups of a true accuracy are expected to bring to each channel.

    Gradient masses ``m+ = E[(c/G) A+(c)]`` and ``m- = E[(1 - c/G) (-A-(c))]`` over ``c ~ Binomial(G, p)``, exactly:
    means over rollouts. Groups of equal outcomes are among them.

    Parameters
    ----------
    estimator
        Any estimator.
    p
        True accuracies, shape (points,).
    size
        G.
    batch_mean
        As for `entropy_lab.advantages.outcomes.advantages_by_outcome`.

    Returns
    -------
    positive, negative : numpy.ndarray
        Shape (points,).

    Raises
    ------
    ParameterError
        The estimator refuses groups of that size.

    Examples
    --------
    GRPO in pairs: only a mixed pair, with probability 2 p (1 - p), has an advantage, of 1 for one of its rollouts.

    >>> from entropy_lab.advantages import get
    >>> expected_masses(get("grpo"), np.array([0.5]), 2, 0.5)
    (array([0.25]), array([0.25]))
    """
    c, n = np.arange(size + 1.0), np.full(size + 1, float(size))
    positive, negative = advantages_by_outcome(estimator, c, n, batch_mean)
    probability = binomial(p, size)
    return probability @ (c / n * positive), probability @ ((c / n - 1) * negative)


def true_masses(estimator: Estimator, p: FloatArray, batch_mean: float) -> tuple[FloatArray, FloatArray]:
    """Gradient masses at the true accuracy: ``p A+(p)`` and ``-(1 - p) A-(p)``.

    In closed form for the beta family; for others those of groups of 256 stand for it.

    Parameters
    ----------
    estimator, p, batch_mean
        As for `expected_masses`.

    Returns
    -------
    positive, negative : numpy.ndarray
        Shape (points,).

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> true_masses(get("grpo"), np.array([0.1, 0.5]), 0.5)[0].round(6)  # sqrt(p (1 - p))
    array([0.3, 0.5])
    """
    if (place := exponents(estimator)) is None:
        return expected_masses(estimator, p, LIMIT, batch_mean)
    at_ends = (np.array([0.0 if beta else 1.0 for beta in place]))[:, None]
    mixed = (p > 0) & (p < 1)
    inside = np.where(mixed, p, 0.5)
    # As powers of p and 1 - p: those of the odds alone pass every number where p is tiny.
    positive = inside ** (1 - place[0]) * (1 - inside) ** place[0]
    negative = inside ** place[1] * (1 - inside) ** (1 - place[1])
    return np.where(mixed, positive, p * at_ends[0]), np.where(mixed, negative, (1 - p) * at_ends[1])


def mixed_ratio(estimator: Estimator, p: FloatArray, size: int, batch_mean: float) -> tuple[FloatArray, FloatArray]:
    """Compare the advantage that rollouts of mixed groups get with that at the true accuracy.

    ``E[A+ | correct, mixed] / A+(p)`` and ``E[A- | wrong, mixed] / A-(p)``: what a curve over the observed accuracy
    inherits.

    Parameters
    ----------
    estimator, p, size, batch_mean
        As for `expected_masses`.

    Returns
    -------
    positive, negative : numpy.ndarray
        Shape (points,); NaN at 0 and 1, and where the advantage at the true accuracy is 0.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> mixed_ratio(get("grpo"), np.array([0.05, 0.95]), 8, 0.5)[0].round(2)
    array([0.54, 1.79])
    """
    c, n = np.arange(size + 1.0), np.full(size + 1, float(size))
    positive, negative = advantages_by_outcome(estimator, c, n, batch_mean)
    probability = np.where((c > 0) & (c < n), binomial(p, size), 0.0)
    found = []
    for values, share, mass in zip(
        (positive, negative), (c, n - c), true_masses(estimator, p, batch_mean), strict=True
    ):
        own = p if share is c else 1 - p
        sign = 1 if share is c else -1
        below = (probability @ share) * np.divide(sign * mass, own, out=np.zeros_like(p), where=own > 0)
        nothing: FloatArray = np.full(len(p), np.nan)
        found.append(np.divide(probability @ (share * values), below, out=nothing, where=below != 0))
    return found[0], found[1]
