"""Pass@k training: each subset of k rollouts is rewarded when one of them is correct, and all subsets are averaged."""

from __future__ import annotations

from functools import partial
from math import comb, sqrt
from typing import Annotated

import numpy as np

from entropy_lab.advantages.arrays import Array
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.parameters import Real, Whole
from entropy_lab.errors import ParameterError


def outcome_advantages(correct: int, size: int, k: int, eps: float) -> tuple[float, float]:
    """Advantage of a correct and of a wrong rollout of one group.

    ``rho = 1 − C(G−c, k)/C(G, k)`` is the share of k-subsets with a correct rollout, ``sigma = sqrt(rho (1−rho))`` the
    standard deviation of their rewards. A rollout gets the mean standardised reward of the subsets that hold it:
    ``(1−rho)/(sigma+eps)`` when correct, ``(1−rho − C(G−c−1, k−1)/C(G−1, k−1))/(sigma+eps)`` when wrong.

    Parameters
    ----------
    correct
        Correct rollouts c, from 0 to ``size``.
    size
        Group size G, at least ``k``.
    k
        Size of a subset.
    eps
        Added to the standard deviation.

    Returns
    -------
    tuple of float
        For a correct and for a wrong rollout; both 0 when every subset passes, or none does.

    References
    ----------
    arXiv:2508.10751, Eq. 11, 12, 14 and 15.

    Examples
    --------
    >>> positive, negative = outcome_advantages(correct=1, size=4, k=2, eps=0.0)
    >>> round(positive, 9), round(negative, 9)
    (1.0, -0.333333333)
    """
    failing = comb(size - correct, k) / comb(size, k)
    if failing in (0, 1):  # the subsets' rewards do not differ, and with eps = 0 there would be nothing to divide by
        return 0.0, 0.0
    sigma = sqrt(failing * (1 - failing))
    failing_with_own = comb(size - correct - 1, k - 1) / comb(size - 1, k - 1)
    return failing / (sigma + eps), (failing - failing_with_own) / (sigma + eps)


def _subset_mean(rewards: Array, _batch_mean: float, *, k: int, eps: float) -> Array:
    size = rewards.shape[1]
    if size < k:
        raise ParameterError("pass_at_k", f"k is {k} but a group has {size} rollouts", "k up to the group size")
    table = np.array([outcome_advantages(correct, size, k, eps) for correct in range(size + 1)])
    correct = rewards.sum(axis=1).astype(np.int64)
    return np.where(rewards == 1, table[correct, :1], table[correct, 1:])


def pass_at_k(k: Annotated[int, Whole(1)] = 4, eps: Annotated[float, Real(0)] = 1e-6) -> Estimator:
    """Pass@k training in closed form.

    ``A = (1−rho)/(sigma+eps)`` for a correct rollout and ``(1−rho − C(G−c−1, k−1)/C(G−1, k−1))/(sigma+eps)`` for a
    wrong one, with c correct rollouts of G, ``rho = 1 − C(G−c, k)/C(G, k)`` and ``sigma = sqrt(rho (1−rho))``. With
    k = 1 and eps = 0 it is GRPO. verl's ``grpo_passk`` is another method (arXiv:2503.19595).

    Parameters
    ----------
    k
        Size of the subsets; no group may be smaller.
    eps
        Added to the standard deviation.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. Zero-sum. All 0 when no rollout is correct, or when fewer than k are wrong. Groups
        smaller than k, groups of one among them unless k = 1, raise `ParameterError` when the estimator is called.

    References
    ----------
    arXiv:2508.10751, Eq. 11, 12, 14 and 15.

    Examples
    --------
    >>> pass_at_k(k=2, eps=0)([[1, 0, 0, 0]]).round(3)
    array([[ 1.   , -0.333, -0.333, -0.333]])
    >>> pass_at_k(k=4)([[1, 1, 0, 0, 0]])
    array([[0., 0., 0., 0., 0.]])
    """
    divisor = f"(σ + {eps:g})" if eps else "σ"
    own = f"C(G−c−1, {k - 1})/C(G−1, {k - 1})"
    return Estimator(
        name="pass_at_k",
        params={"k": k, "eps": eps},
        formula=(
            f"A = (1 − ρ)/{divisor} if r = 1, (1 − ρ − {own})/{divisor} if r = 0; "
            f"ρ = 1 − C(G−c, {k})/C(G, {k}), σ = √(ρ(1 − ρ))"
        ),
        reference="arXiv:2508.10751, Eq. 11-15",
        label=f"Pass@{k}",
        kernel=partial(_subset_mean, k=k, eps=eps),
        binary=True,
        invariances=frozenset({"zero_sum", "permutation"}),
    )
