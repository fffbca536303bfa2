"""Estimators that subtract the group's mean reward: GRPO, Dr.GRPO and RLOO."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from entropy_lab.advantages.arrays import Array
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.parameters import Choice, Real


def deviations(rewards: Array) -> Array:
    """Distance of each reward from its group's mean.

    ``r − r̄``, exactly 0 in a group of equal rewards: the smallest is taken off first, because the mean of three times
    0.1 is not 0.1 in floating point, and dividing what is left by its own spread would give ±1 instead of 0.

    Parameters
    ----------
    rewards
        Shape (n, G).

    Returns
    -------
    ndarray
        Shape (n, G); each row sums to 0.

    Examples
    --------
    >>> deviations(np.array([[0.1, 0.1, 0.1]]))
    array([[0., 0., 0.]])
    """
    above = rewards - rewards.min(axis=1, keepdims=True)
    centred: Array = above - above.mean(axis=1, keepdims=True)
    return centred


def spread(rewards: Array, ddof: int = 0) -> Array:
    """Measure the standard deviation of each group's rewards.

    ``s = sqrt(sum_i (r_i − r̄)² / (G − ddof))``.

    Parameters
    ----------
    rewards
        Shape (n, G).
    ddof
        0 for the population's, 1 for the sample's.

    Returns
    -------
    ndarray
        Shape (n, 1), non-negative; 0 for equal rewards, and so for a group of one with either ``ddof``.

    Examples
    --------
    >>> spread(np.array([[1.0, 0.0], [1.0, 1.0]])).ravel()
    array([0.5, 0. ])
    """
    degrees = max(rewards.shape[1] - ddof, 1)
    result: Array = np.sqrt(np.sum(deviations(rewards) ** 2, axis=1, keepdims=True) / degrees)
    return result


def over_spread(distance: Array, scale: Array) -> Array:
    """Divide by the group's spread, with 0 where there is none.

    Parameters
    ----------
    distance
        Shape (n, G).
    scale
        Non-negative, shape (n, 1).

    Returns
    -------
    ndarray
        ``distance / scale``; 0 where ``scale`` is 0.

    Examples
    --------
    >>> over_spread(np.array([[1.0], [0.0]]), np.array([[2.0], [0.0]])).ravel()
    array([0.5, 0. ])
    """
    result: Array = np.divide(distance, scale, out=np.zeros_like(distance), where=scale > 0)
    return result


def _standardised(rewards: Array, _batch_mean: float, *, ddof: int, eps: float) -> Array:
    return over_spread(deviations(rewards), spread(rewards, ddof) + eps)


def grpo(ddof: Annotated[int, Choice(0, 1)] = 0, eps: Annotated[float, Real(0)] = 0.0) -> Estimator:
    """GRPO: rewards standardised within their group.

    ``A = (r − r̄) / (s + eps)``; with rewards in {0, 1}, ddof 0 and eps 0 that is ``sqrt((1−p)/p)`` for a correct
    rollout and ``−sqrt(p/(1−p))`` for a wrong one.

    Parameters
    ----------
    ddof
        Of the standard deviation: 0 as in the paper, 1 as in verl, TRL and oat.
    eps
        Added to the standard deviation: 0 as in the paper, 1e-6 in verl, 1e-4 in TRL, 1e-8 in oat.

    Returns
    -------
    Estimator
        Zero-sum and shift-invariant; scale-invariant with ``eps`` 0. Groups of equal rewards, groups of one among
        them, get 0.

    References
    ----------
    arXiv:2402.03300, Section 4.1.2; arXiv:2604.04894, Eq. 4 and 6.

    Examples
    --------
    >>> grpo()([[1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    array([[ 2. , -0.5, -0.5, -0.5, -0.5],
           [ 0. ,  0. ,  0. ,  0. ,  0. ]])
    >>> grpo(ddof=1, eps=1e-6).label
    'GRPO (ddof 1, ε 1e-06)'
    """
    settings = ([f"ddof {ddof}"] if ddof else []) + ([f"ε {eps:g}"] if eps else [])
    divisor = f"(s + {eps:g})" if eps else "s"
    return Estimator(
        name="grpo",
        params={"ddof": ddof, "eps": eps},
        formula=f"A = (r − r̄) / {divisor}" + (", s with ddof 1" if ddof else ""),
        reference="arXiv:2402.03300, Section 4.1.2; arXiv:2604.04894, Eq. 4",
        label="GRPO" + (f" ({', '.join(settings)})" if settings else ""),
        kernel=partial(_standardised, ddof=ddof, eps=eps),
        binary=False,
        invariances=frozenset({"zero_sum", "shift", "permutation"} | (set() if eps else {"scale"})),
    )


def _centred(rewards: Array, _batch_mean: float) -> Array:
    return deviations(rewards)


def dr_grpo() -> Estimator:
    """Dr.GRPO: rewards less their group's mean, not divided by the spread.

    ``A = r − r̄``. Its loss sums the token losses of a response and divides by a fixed length, instead of taking the
    mean over tokens: see ``aggregation``.

    Returns
    -------
    Estimator
        Zero-sum and shift-invariant. A group of one gets 0.

    References
    ----------
    arXiv:2503.20783, Section 3.2.

    Examples
    --------
    >>> dr_grpo()([[1, 0, 0, 0]])
    array([[ 0.75, -0.25, -0.25, -0.25]])
    >>> dr_grpo().aggregation
    'seq-mean-token-sum-norm'
    """
    return Estimator(
        name="dr_grpo",
        params={},
        formula="A = r − r̄",
        reference="arXiv:2503.20783, Section 3.2",
        label="Dr.GRPO",
        kernel=_centred,
        binary=False,
        invariances=frozenset({"zero_sum", "shift", "permutation"}),
        aggregation="seq-mean-token-sum-norm",
    )


def _leave_one_out(rewards: Array, _batch_mean: float) -> Array:
    size = rewards.shape[1]
    scaled: Array = deviations(rewards) * (size / max(size - 1, 1))
    return scaled


def rloo() -> Estimator:
    """RLOO: the reward less the mean reward of the group's other rollouts.

    ``A_i = r_i − (1/(G−1)) sum_{j≠i} r_j = G/(G−1) (r_i − r̄)``.

    Returns
    -------
    Estimator
        Zero-sum and shift-invariant. A group of one, which has no others to compare with, gets 0.

    References
    ----------
    arXiv:2402.14740, Section 2.3.

    Examples
    --------
    >>> rloo()([[1, 0, 0]])
    array([[ 1. , -0.5, -0.5]])
    """
    return Estimator(
        name="rloo",
        params={},
        formula="A = G/(G−1) · (r − r̄)",
        reference="arXiv:2402.14740, Section 2.3",
        label="RLOO",
        kernel=_leave_one_out,
        binary=False,
        invariances=frozenset({"zero_sum", "shift", "permutation"}),
    )
