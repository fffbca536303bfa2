"""Flipped curves: one channel of the beta family reflected around a group accuracy of one half."""

from __future__ import annotations

from functools import partial

import numpy as np

from entropy_lab.advantages.arrays import Array
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.power import Beta, odds_power


def reflected(count: Array, size: int, beta: float) -> Array:
    """Size of the advantage that grows with how common the rollout's own outcome is.

    ``f(q) = (q/(1−q))^beta`` with q = count / size. It is singular at q = 1, which a group reaches in one step of its
    grid; there the last step is extended linearly: ``f(1) = 2 f(1 − 1/G) − f(1 − 2/G)``.

    Parameters
    ----------
    count
        Rollouts with this outcome, 0 to ``size``.
    size
        Group size G. A group of one has no step to extend and gets f(0): 0, or 1 with ``beta`` 0.
    beta
        Exponent, non-negative.

    Returns
    -------
    ndarray
        Shape of ``count``, non-negative.

    References
    ----------
    arXiv:2604.04894, Appendix D, Eq. 15-18.

    Examples
    --------
    >>> reflected(np.array([6.0, 7.0, 8.0]), 8, 0.5).round(6)
    array([1.732051, 2.645751, 3.559452])
    """
    inside = odds_power(count, size - count, beta)
    last, before = float(max(size - 1, 0)), max(size - 2, 0) / 2
    end = 2 * last**beta - before**beta if size > 1 else 0.0**beta
    return np.where(count == size, end, inside)


def _decrease(rewards: Array, _batch_mean: float, *, beta: float) -> Array:
    size = rewards.shape[1]
    correct = rewards.sum(axis=1, keepdims=True)
    return np.where(rewards == 1, reflected(correct, size, beta), -odds_power(correct, size - correct, beta))


def _increase(rewards: Array, _batch_mean: float, *, beta: float) -> Array:
    size = rewards.shape[1]
    wrong = size - rewards.sum(axis=1, keepdims=True)
    return np.where(rewards == 1, odds_power(wrong, size - wrong, beta), -reflected(wrong, size, beta))


def ent_decrease(beta: Beta = 0.5) -> Estimator:
    """EntDecrease: GRPO with the positive channel flipped, so that easy prompts are reinforced most.

    ``A = (p/(1−p))^beta`` for a correct rollout, extended linearly to p = 1; ``−(p/(1−p))^beta`` for a wrong one.

    Parameters
    ----------
    beta
        Exponent of both channels; 0.5 flips GRPO, 0 is REINFORCE.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. A group of one gets 0 (±1 with ``beta`` 0): it has no grid step to extend.

    References
    ----------
    arXiv:2604.04894, Appendix D, Eq. 15-18.

    Examples
    --------
    >>> ent_decrease()([[1, 1, 1, 1, 0]])
    array([[ 2.,  2.,  2.,  2., -2.]])
    """
    curve = f"(p/(1−p))^{beta:g}"
    return Estimator(
        name="ent_decrease",
        params={"beta": beta},
        formula=f"A = {curve} if r = 1 (last grid step extended linearly to p = 1), −{curve} if r = 0",
        reference="arXiv:2604.04894, Appendix D, Eq. 15-18",
        label="EntDecrease" if beta == 0.5 else f"EntDecrease {beta:g}",
        kernel=partial(_decrease, beta=beta),
        binary=True,
    )


def ent_increase(beta: Beta = 0.5) -> Estimator:
    """EntIncrease: GRPO with the negative channel flipped, so that failures on hard prompts are punished most.

    ``A = ((1−p)/p)^beta`` for a correct rollout; ``−((1−p)/p)^beta`` for a wrong one, extended linearly to p = 0.

    Parameters
    ----------
    beta
        Exponent of both channels; 0.5 flips GRPO, 0 is REINFORCE.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. A group of one gets 0 (±1 with ``beta`` 0): it has no grid step to extend.

    References
    ----------
    arXiv:2604.04894, Appendix D, Eq. 15-18.

    Examples
    --------
    >>> ent_increase()([[1, 0, 0, 0, 0]])
    array([[ 2., -2., -2., -2., -2.]])
    """
    curve = f"((1−p)/p)^{beta:g}"
    return Estimator(
        name="ent_increase",
        params={"beta": beta},
        formula=f"A = {curve} if r = 1, −{curve} if r = 0 (last grid step extended linearly to p = 0)",
        reference="arXiv:2604.04894, Appendix D, Eq. 15-18",
        label="EntIncrease" if beta == 0.5 else f"EntIncrease {beta:g}",
        kernel=partial(_increase, beta=beta),
        binary=True,
    )
