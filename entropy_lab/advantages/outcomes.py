"""Advantages by outcome: what an estimator gives a correct and a wrong rollout of groups that are known by counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from entropy_lab.advantages.arrays import Array
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.power import odds_power
from entropy_lab.advantages.registry import get
from entropy_lab.errors import EntropyLabError, ParameterError


def advantages_by_outcome(
    estimator: Estimator, n_correct: Array, n_rollouts: Array, batch_mean: float
) -> tuple[Array, Array]:
    """Evaluate an estimator at groups of which only the numbers of correct and of all rollouts are known.

    With rewards in {0, 1} a rollout's advantage depends on its outcome, on these two numbers and, for some estimators
    (`a_grae`), on the mean reward of the batch. What tokens get beside that stays out.

    Parameters
    ----------
    estimator
        Any estimator.
    n_correct, n_rollouts
        Whole numbers, shape (groups,); ``0 <= n_correct <= n_rollouts`` and ``n_rollouts >= 1``.
    batch_mean
        Mean reward of the batch that the groups are part of, in [0, 1].

    Returns
    -------
    positive, negative : numpy.ndarray
        Advantage of a correct and of a wrong rollout, shape (groups,); 0 where the group has none.

    Raises
    ------
    ParameterError
        The estimator refuses groups of that size (`pass_at_k`).

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> advantages_by_outcome(get("grpo"), np.array([1, 5]), np.array([5, 5]), 0.6)
    (array([2., 0.]), array([-0.5,  0. ]))
    """
    positive, negative = np.zeros(len(n_correct)), np.zeros(len(n_correct))
    for size in np.unique(n_rollouts).astype(int):
        here = n_rollouts == size
        # Row by row the correct rollouts first, so that the first and the last column hold one outcome each.
        rewards = (np.arange(size) < n_correct[here, None]).astype(np.float64)
        advantage = estimator.kernel(rewards, batch_mean)
        positive[here] = np.where(rewards[:, 0] == 1, advantage[:, 0], 0.0)
        negative[here] = np.where(rewards[:, -1] == 0, advantage[:, -1], 0.0)
    return positive, negative


def of_all(
    estimators: Mapping[str, Estimator], n_correct: Array, n_rollouts: Array
) -> tuple[dict[str, tuple[Array, Array]], dict[str, str]]:
    """Evaluate every estimator that a group's counts are enough for.

    Parameters
    ----------
    estimators
        Name -> estimator.
    n_correct, n_rollouts
        As for `advantages_by_outcome`.

    Returns
    -------
    found : dict
        Name -> what `advantages_by_outcome` gives. Estimators that read the batch too are left out.
    refused : dict
        Name -> why the estimator refuses groups of some size.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> found, refused = of_all({"grpo": get("grpo"), "pass_at_k": get("pass_at_k", k=4)}, np.ones(1), np.full(1, 2.0))
    >>> list(found), refused
    (['grpo'], {'pass_at_k': 'pass_at_k: k is 4 but a group has 2 rollouts; k up to the group size'})
    """
    found, refused = {}, {}
    for name, estimator in estimators.items():
        if not estimator.reads_batch:
            try:
                found[name] = advantages_by_outcome(estimator, n_correct, n_rollouts, np.nan)
            except ParameterError as error:
                refused[name] = str(error)
    return found, refused


def beta_advantages(betas: Array, n_correct: Array, n_rollouts: Array) -> tuple[Array, Array]:
    """Evaluate the beta family at several exponents of each channel.

    ``A+ = ((1−p)/p)^beta`` and ``A− = −(p/(1−p))^beta`` with p = n_correct / n_rollouts and 0⁰ = 1.

    Parameters
    ----------
    betas
        Exponents, non-negative, shape (betas,).
    n_correct, n_rollouts
        As for `advantages_by_outcome`.

    Returns
    -------
    positive, negative : numpy.ndarray
        Shape (groups, betas); 0 where a group has no rollout of the outcome.

    References
    ----------
    arXiv:2604.04894, Eq. 7 and 10.

    Examples
    --------
    >>> beta_advantages(np.array([0.0, 0.5]), np.array([1.0]), np.array([5.0]))
    (array([[1., 2.]]), array([[-1. , -0.5]]))
    """
    n_wrong = n_rollouts - n_correct
    positive = np.stack([odds_power(n_wrong, n_correct, beta) for beta in betas.tolist()], axis=-1)
    negative = -np.stack([odds_power(n_correct, n_wrong, beta) for beta in betas.tolist()], axis=-1)
    return np.where(n_correct[:, None] > 0, positive, 0.0), np.where(n_wrong[:, None] > 0, negative, 0.0)


def exponents(estimator: Estimator) -> tuple[float, float] | None:
    """Place an estimator on the plane of (beta_pos, beta_neg).

    Parameters
    ----------
    estimator
        Any estimator. GRPO lies at (1/2, 1/2) with either ``ddof``: that of 1 rescales every advantage alike.

    Returns
    -------
    tuple of float or None
        None for what is no member of the beta family.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> exponents(get("grpo")), exponents(get("pos_only")), exponents(get("rloo"))
    ((0.5, 0.5), (0.5, 0.0), None)
    """
    if estimator.name == "grpo":
        return 0.5, 0.5
    if estimator.name not in ("reinforce", "pos_only", "neg_only", "asym_grpo"):
        return None
    return float(estimator.params.get("beta_pos", 0.0)), float(estimator.params.get("beta_neg", 0.0))


def estimator_of(method: Mapping[str, Any]) -> Estimator | None:
    """Build the estimator that a run's method names.

    Parameters
    ----------
    method
        ``method`` of run.json: ``name``, and ``params``, of which those of the loss are left out.

    Returns
    -------
    Estimator or None
        None for a method that is not registered, or that changes during training.

    Examples
    --------
    >>> estimator_of({"name": "pos_only", "params": {"beta_pos": 0.7, "clip_high": 0.28}}).label
    'Pos-Only 0.7'
    >>> estimator_of({"name": "entropy_target"}) is None
    True
    """
    try:
        known = get(str(method["name"])).params
        params = method.get("params") or {}
        return get(str(method["name"]), **{name: params[name] for name in known if name in params})
    except EntropyLabError:
        return None
