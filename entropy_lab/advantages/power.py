"""The beta family: odds of the group accuracy raised to a power, one for each channel; REINFORCE is power 0."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Final

import numpy as np

from entropy_lab.advantages.arrays import Array
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.parameters import Real

Beta = Annotated[float, Real(0)]

CURVES: Final = "A = ((1−p)/p)^beta_pos if r = 1, −(p/(1−p))^beta_neg if r = 0"
"""AsymGRPO's formula where the exponents have no one value."""


def odds_power(others: Array, own: Array, beta: float) -> Array:
    """Size of the advantage of one outcome, from how many rollouts of its group have the other outcome and its own.

    ``(others / own)^beta`` with 0⁰ = 1; where ``own`` is 0 there is no rollout to give it to, and the value is unused.

    Parameters
    ----------
    others, own
        Number of rollouts with the other outcome and with this one; same shape.
    beta
        Exponent, non-negative.

    Returns
    -------
    ndarray
        Shape of ``own``, non-negative.

    Examples
    --------
    >>> odds_power(np.array([4.0, 0.0]), np.array([1.0, 5.0]), 0.5)
    array([2., 0.])
    >>> odds_power(np.array([0.0]), np.array([5.0]), 0.0)
    array([1.])
    """
    result: Array = (others / np.maximum(own, 1)) ** beta
    return result


def _power(rewards: Array, _batch_mean: float, *, beta_pos: float, beta_neg: float) -> Array:
    correct = rewards.sum(axis=1, keepdims=True)
    wrong = rewards.shape[1] - correct
    return np.where(rewards == 1, odds_power(wrong, correct, beta_pos), -odds_power(correct, wrong, beta_neg))


def _curves(beta_pos: float, beta_neg: float) -> str:
    positive = f"((1−p)/p)^{beta_pos:g}" if beta_pos else "1"
    negative = f"(p/(1−p))^{beta_neg:g}" if beta_neg else "1"
    return f"A = {positive} if r = 1, −{negative} if r = 0"


def _invariances(beta_pos: float, beta_neg: float) -> frozenset[str]:
    # p ((1−p)/p)^a = (1−p) (p/(1−p))^b for every p exactly when a + b = 1; at p = 0 and 1 it needs a, b > 0.
    zero_sum = min(beta_pos, beta_neg) > 0 and math.isclose(beta_pos + beta_neg, 1, rel_tol=1e-12)
    return frozenset({"permutation", "zero_sum"} if zero_sum else {"permutation"})


def reinforce() -> Estimator:
    """REINFORCE with the reward rescaled to ±1.

    ``A = 2r − 1``: there is no baseline. Other baselines are other estimators.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. A group of one gets ±1 like any other.

    References
    ----------
    arXiv:2604.04894, Eq. 5.

    Examples
    --------
    >>> reinforce()([[1, 0, 0]])
    array([[ 1., -1., -1.]])
    """
    return Estimator(
        name="reinforce",
        params={},
        formula="A = 2r − 1",
        reference="arXiv:2604.04894, Eq. 5",
        label="REINFORCE (2r − 1)",
        kernel=partial(_power, beta_pos=0.0, beta_neg=0.0),
        binary=True,
    )


def asym_grpo(beta_pos: Beta = 0.9, beta_neg: Beta = 0.4) -> Estimator:
    """AsymGRPO: the positive and the negative channel with exponents of their own.

    ``A = ((1−p)/p)^beta_pos`` for a correct rollout, ``−(p/(1−p))^beta_neg`` for a wrong one, with 0⁰ = 1: at p = 1 a
    correct rollout gets 0, or +1 with ``beta_pos`` 0; at p = 0 a wrong one gets 0, or −1 with ``beta_neg`` 0.

    Parameters
    ----------
    beta_pos
        Exponent of the positive channel; 0 is REINFORCE's, 0.5 is GRPO's.
    beta_neg
        Exponent of the negative channel; 0 is REINFORCE's, 0.5 is GRPO's.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. Zero-sum exactly when both exponents are positive and sum to 1. A group of one gets
        what its p of 0 or 1 gives.

    References
    ----------
    arXiv:2604.04894, Eq. 7 and 10, Table 1.

    Examples
    --------
    >>> asym_grpo(beta_pos=2, beta_neg=0)([[1, 0, 0]])
    array([[ 4., -1., -1.]])
    >>> asym_grpo().label
    'AsymGRPO 0.9/0.4'
    """
    return Estimator(
        name="asym_grpo",
        params={"beta_pos": beta_pos, "beta_neg": beta_neg},
        formula=_curves(beta_pos, beta_neg),
        reference="arXiv:2604.04894, Eq. 10",
        label=f"AsymGRPO {beta_pos:g}/{beta_neg:g}",
        kernel=partial(_power, beta_pos=beta_pos, beta_neg=beta_neg),
        binary=True,
        invariances=_invariances(beta_pos, beta_neg),
    )


def pos_only(beta_pos: Beta = 0.5) -> Estimator:
    """Pos-Only: the positive channel modulated, the negative one as in REINFORCE.

    ``A = ((1−p)/p)^beta_pos`` for a correct rollout, −1 for a wrong one.

    Parameters
    ----------
    beta_pos
        Exponent of the positive channel.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. A correct group of one gets 0 (+1 with ``beta_pos`` 0), a wrong one −1.

    References
    ----------
    arXiv:2604.04894, Eq. 7, Fig. 2.

    Examples
    --------
    >>> pos_only()([[1, 0, 0, 0, 0]])
    array([[ 2., -1., -1., -1., -1.]])
    """
    return Estimator(
        name="pos_only",
        params={"beta_pos": beta_pos},
        formula=_curves(beta_pos, 0.0),
        reference="arXiv:2604.04894, Eq. 7 (beta_neg = 0)",
        label=f"Pos-Only {beta_pos:g}",
        kernel=partial(_power, beta_pos=beta_pos, beta_neg=0.0),
        binary=True,
    )


def neg_only(beta_neg: Beta = 0.5) -> Estimator:
    """Neg-Only: the negative channel modulated, the positive one as in REINFORCE.

    ``A = +1`` for a correct rollout, ``−(p/(1−p))^beta_neg`` for a wrong one.

    Parameters
    ----------
    beta_neg
        Exponent of the negative channel.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. A correct group of one gets +1, a wrong one 0 (−1 with ``beta_neg`` 0).

    References
    ----------
    arXiv:2604.04894, Eq. 7, Fig. 2.

    Examples
    --------
    >>> neg_only()([[1, 0, 0, 0, 0]])
    array([[ 1. , -0.5, -0.5, -0.5, -0.5]])
    """
    return Estimator(
        name="neg_only",
        params={"beta_neg": beta_neg},
        formula=_curves(0.0, beta_neg),
        reference="arXiv:2604.04894, Eq. 7 (beta_pos = 0)",
        label=f"Neg-Only {beta_neg:g}",
        kernel=partial(_power, beta_pos=0.0, beta_neg=beta_neg),
        binary=True,
    )
