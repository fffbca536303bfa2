"""QAE: a quantile of the group's rewards as the baseline."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Final

import numpy as np

from entropy_lab.advantages.arrays import Array
from entropy_lab.advantages.centred import over_spread, spread
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.parameters import Choice, Real

_ROUNDING: Final = 1e-9
"""K G is meant to be whole where it is within this of a whole number: 0.07 times 100 is 7.000000000000001."""


def lower_quantile(rewards: Array, level: float) -> Array:
    """Smallest reward at which a group's empirical distribution function reaches a level.

    ``Q_K = inf{x : F(x) ≥ K}``, the ceil(K G)-th smallest reward. With rewards in {0, 1} it is 0 for p ≤ 1 − K, else 1.

    Parameters
    ----------
    rewards
        Shape (n, G), G at least 1.
    level
        K, in (0, 1).

    Returns
    -------
    ndarray
        Shape (n, 1), one of the group's own rewards.

    References
    ----------
    arXiv:2509.22611, Section 4.1 and Eq. 4.

    Examples
    --------
    >>> lower_quantile(np.array([[1.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0]]), 0.4).ravel()
    array([0., 1.])
    """
    rank = max(math.ceil(level * rewards.shape[1] - _ROUNDING), 1)
    ordered: Array = np.sort(rewards, axis=1)
    return ordered[:, rank - 1 : rank]


def _above_quantile(rewards: Array, _batch_mean: float, *, level: float, interpolate: bool) -> Array:
    baseline = np.quantile(rewards, level, axis=1, keepdims=True) if interpolate else lower_quantile(rewards, level)
    return over_spread(rewards - baseline, spread(rewards))


def qae(
    K: Annotated[float, Real(0, 1, open_at="both")] = 0.4,
    variant: Annotated[str, Choice("paper", "released")] = "paper",
) -> Estimator:
    """Quantile advantage estimation: distance from the group's K-quantile, over the group's spread.

    ``A = (r − Q_K) / s``, s with ddof 0. With rewards in {0, 1} it reinforces only the successes of hard groups
    (p ≤ 1 − K) and punishes only the failures of easy ones.

    Parameters
    ----------
    K
        Level of the quantile; smaller values treat more groups as hard.
    variant
        ``"paper"``: ``Q_K = inf{x : F(x) ≥ K}``. ``"released"``: the published code interpolates linearly between
        order statistics (``torch.quantile``), so that near p = 1 − K the baseline lies between 0 and 1 and both
        outcomes get a non-zero advantage. The code's ddof of 1 and its epsilon are not part of the variant.

    Returns
    -------
    Estimator
        Shift- and scale-invariant. Groups of equal rewards, groups of one among them, get 0.

    References
    ----------
    arXiv:2509.22611, Eq. 3 and 4.

    Examples
    --------
    >>> qae()([[1, 0, 0, 0, 0], [1, 1, 1, 1, 0]])
    array([[ 2.5,  0. ,  0. ,  0. ,  0. ],
           [ 0. ,  0. ,  0. ,  0. , -2.5]])
    """
    released = variant == "released"
    return Estimator(
        name="qae",
        params={"K": K, "variant": variant},
        formula=f"A = (r − Q) / s, Q = {K:g}-quantile of r" + (", interpolated" if released else ""),
        reference="arXiv:2509.22611, Eq. 3-4",
        label=f"QAE {K:g}" + (" (released)" if released else ""),
        kernel=partial(_above_quantile, level=K, interpolate=released),
        binary=False,
        invariances=frozenset({"shift", "scale", "permutation"}),
    )
