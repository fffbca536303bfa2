"""Check of the exchange of entropy for reward, R = -a exp(H) + b: whether there is anything left to exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from entropy_lab.diagnosis.checks import CONFIDENCE, FEWEST, Check
from entropy_lab.diagnosis.finding import WARNING, Case, Measure, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.trends import autocorrelation, condense, mean_inflation

FloatArray = NDArray[np.float64]

EXPLAINED: Final = 0.5
"""Least share of the reward's variance that the fit must explain."""
MOST_NATS: Final = 13.0
"""Logarithm of the largest vocabulary (442,000 tokens)."""
LEFT: Final = 0.1
"""Share of all that the first entropy could pay for, below which the rest counts as nothing."""


@dataclass(frozen=True)
class Exchange:
    """A fit of ``R = -a exp(H) + b``: coefficients, interval of a, and the share of variance explained."""

    a: float
    b: float
    low: float
    high: float
    explained: float


def fit_exchange(entropy: FloatArray, reward: FloatArray, confidence: float = 0.95) -> Exchange:
    """Fit the exchange by least squares, with an interval that knows of autocorrelation.

    Parameters
    ----------
    entropy, reward
        Of the same steps, shape (n,), in order; entropy in nats per token.
    confidence
        Coverage of the interval of ``a``.

    Returns
    -------
    Exchange
        All NaN where entropy or reward do not vary.

    References
    ----------
    arXiv 2505.22617, Eq. 1: a description of runs without an entropy intervention, not a law.

    Examples
    --------
    >>> h = np.linspace(1, 0.2, 30)
    >>> found = fit_exchange(h, 0.9 - 0.2 * np.exp(h))
    >>> round(found.a, 9), round(found.b, 9), round(found.explained, 9)
    (0.2, 0.9, 1.0)
    """
    x = np.exp(entropy)
    dx, dy = x - x.mean(), reward - reward.mean()
    power, total = float(dx @ dx), float(dy @ dy)
    if power == 0 or total == 0:
        return Exchange(*[float("nan")] * 5)
    slope = float(dx @ dy) / power
    left = dy - slope * dx
    # Both series wander slowly: there are as many independent points as the residuals have.
    freedom = max(len(x) / mean_inflation(autocorrelation(left), len(x)) - 2, 1.0)
    error = (float(left @ left) / (freedom * power)) ** 0.5
    reach = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
    b = float(reward.mean() - slope * x.mean())
    return Exchange(-slope, b, -slope - reach, -slope + reach, 1 - float(left @ left) / total)


def exhausted(observed: Observed) -> Case | Undecided | None:
    """Find that less than a tenth of what the first entropy could pay for is left, by the fit."""
    entropy, reward = observed.need("entropy"), observed.need("reward")
    if entropy.values.max() > MOST_NATS:
        return Undecided(f"{entropy.source} reaches {entropy.values.max():.3g} nats: no entropy of one token")
    steps, i, j = np.intersect1d(entropy.steps, reward.steps, return_indices=True)
    if len(steps) < FEWEST or (entropy.values[i] <= 0).any():
        return Undecided(f"entropy above 0 and reward are both known at too few steps ({len(steps)})")
    _, h = condense(steps, entropy.values[i])
    _, r = condense(steps, reward.values[j])
    found = fit_exchange(h, r, CONFIDENCE)
    if not (found.low > 0 and found.explained >= EXPLAINED):
        interval = f"a in [{found.low:.3g}, {found.high:.3g}], {found.explained:.0%} of the reward's variance explained"
        return Undecided(f"R = -a exp(H) + b is not identified: {interval}")
    start, end = float(np.median(h[:3])), float(np.median(h[-max(3, len(h) // 10) :]))
    left = float(np.expm1(end) / np.expm1(max(start, end)))
    if left >= LEFT:
        return None
    return Case(
        WARNING,
        f"the exchange of entropy for reward is exhausted: {left:.0%} of what entropy could pay for is left",
        (
            Measure("a of R = -a exp(H) + b", found.a, found.low, found.high, "", float(steps[0]), float(steps[-1])),
            Measure("share of the reward's variance explained", found.explained),
            Measure("reward still to be had, by the fit", found.a * float(np.expm1(end))),
            Measure("reward at entropy 0, by the fit", found.b - found.a),
        ),
    )


CHECKS: Final = (
    Check(
        "exchange_exhausted",
        "reward-entropy exchange exhausted",
        (("entropy",), ("reward",)),
        exhausted,
        "Without an intervention the reward follows R = -a exp(H) + b: when the entropy is used up, so is the gain "
        "that it buys.",
        "arXiv 2505.22617",
        (
            "do not expect more from more steps: hold the entropy earlier, with {clip_high} or {covariance_clip}",
            "take harder prompts",
        ),
    ),
)
