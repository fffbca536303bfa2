"""Shares of groups that all rollouts solve or none does, observed and expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

FloatArray = NDArray[np.float64]

_LEAST_SPREAD: Final = 1e-9
"""Variance between prompts, over that within, that counts as none: below, logarithms of Beta functions lose digits."""


@dataclass(frozen=True)
class SolveRates:
    """Shares of groups, each in [0, 1]; expected ones are NaN when no group has two verified rollouts."""

    n_groups: int
    all_solved: float
    none_solved: float
    expected_all: float
    expected_none: float


def solve_rates(n_correct: FloatArray, n_verified: FloatArray, weights: FloatArray | None = None) -> SolveRates:
    """Observed and expected shares of all-solved and none-solved groups.

    The expected shares are those of a Beta-binomial: prompts differ in their true accuracy, smoothly, and rollouts of
    a prompt are independent. Its two moments are estimated without bias from pairs of rollouts,
    ``m1 = sum c / sum n`` and ``m2 = sum c (c - 1) / sum n (n - 1)``, whence ``a + b = (m1 - m2) / (m2 - m1²)`` and
    ``a = m1 (a + b)``; a group of n is then all-solved with probability ``B(a + n, b) / B(a, b)``. More all-solved
    groups than expected means that prompts are polarised beyond what a smooth spread of difficulty explains.

    Parameters
    ----------
    n_correct, n_verified
        Correct and verified rollouts of each group, shape (groups,); groups without a verified one are left out.
    weights
        How many groups each entry stands for; default one.

    Returns
    -------
    SolveRates
        Observed shares are NaN for no group.

    References
    ----------
    Figure 2c of arXiv 2604.04894 for the shares; Skellam (1948) for the Beta-binomial.

    Examples
    --------
    >>> rates = solve_rates(np.array([4.0, 0.0, 2.0, 4.0]), np.full(4, 4.0))
    >>> rates.n_groups, rates.all_solved, rates.none_solved
    (4, 0.5, 0.25)
    """
    weights = np.ones(len(n_verified)) if weights is None else weights
    kept = n_verified > 0
    c, n, w = n_correct[kept], n_verified[kept], weights[kept]
    total = w.sum()
    if not total:
        return SolveRates(0, *[float("nan")] * 4)
    expected_all, expected_none = _expected(c, n, w)
    return SolveRates(int(total), float(w @ (c == n) / total), float(w @ (c == 0) / total), expected_all, expected_none)


def accuracy_spread(c: FloatArray, n: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit how true accuracies differ between prompts, by the two moments that `solve_rates` takes.

    Parameters
    ----------
    c, n
        Correct and verified rollouts of each entry, shape (entries,); n is 1 or more.
    w
        How many groups each entry stands for, shape (..., entries).

    Returns
    -------
    mean : numpy.ndarray
        m1, shape (...); NaN of no group.
    strength : numpy.ndarray
        a + b of the Beta distribution, shape (...), up to 1e9: 0 where every prompt is either solved or not, infinity
        where accuracies spread no more than chance makes them, NaN where no group has two rollouts.

    Examples
    --------
    >>> mean, strength = accuracy_spread(np.array([4.0, 0.0, 2.0, 4.0]), np.full(4, 4.0), np.ones(4))
    >>> float(mean), round(float(strength), 3)
    (0.625, 0.552)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        m1 = (w @ c) / (w @ n)
        m2 = (w @ (c * (c - 1))) / (w @ (n * (n - 1)))
        within, between = m1 - m2, m2 - m1**2
        strength = np.where(within <= 0, 0.0, np.where(between <= _LEAST_SPREAD * within, np.inf, within / between))
    return m1, np.where(np.isnan(m2), np.nan, strength)


def _expected(c: FloatArray, n: FloatArray, w: FloatArray) -> tuple[float, float]:
    mean, strength = (float(value) for value in accuracy_spread(c, n, w))
    if np.isnan(strength):
        return float("nan"), float("nan")
    if strength == 0:  # no group is mixed: every prompt is either solved or not
        return mean, 1 - mean
    if np.isinf(strength):  # no more spread than chance gives: one accuracy for all prompts
        return float(w @ mean**n / w.sum()), float(w @ (1 - mean) ** n / w.sum())
    a, b = mean * strength, (1 - mean) * strength
    share_all = np.exp(betaln(a + n, b) - betaln(a, b))
    share_none = np.exp(betaln(a, b + n) - betaln(a, b))
    return float(w @ share_all / w.sum()), float(w @ share_none / w.sum())
