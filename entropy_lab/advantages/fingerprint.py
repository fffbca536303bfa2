"""The fingerprint of an estimator: its advantages and gradient masses as functions of the group accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from entropy_lab.advantages.arrays import Array
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.parameters import Whole
from entropy_lab.errors import ParameterError


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """An estimator at every accuracy that a group of G rollouts can have; all arrays have shape (G + 1,).

    Parameters
    ----------
    accuracy
        Group accuracy p = c/G for c = 0, …, G.
    positive
        Advantage A+ of a correct rollout; NaN at p = 0, where there is none.
    negative
        Advantage A− of a wrong rollout; NaN at p = 1, where there is none.
    mean
        Mean advantage over all rollouts of the group, dropped ones counted as 0: mass_positive − mass_negative.
    mass_positive
        Gradient mass of the positive channel, ``m+ = E[A; r = 1] = p A+``; 0 at p = 0.
    mass_negative
        Gradient mass of the negative channel, ``m− = E[−A; r = 0] = −(1−p) A−``; 0 at p = 1.
    """

    accuracy: Array
    positive: Array
    negative: Array
    mean: Array
    mass_positive: Array
    mass_negative: Array


def fingerprint(estimator: Estimator, group_size: int = 8) -> Fingerprint:
    """Evaluate an estimator at every group accuracy.

    One call on a batch of G + 1 groups, one of each accuracy 0/G, 1/G, …, G/G, rewards in {0, 1}. An estimator that
    looks at the batch's mean reward (`a_grae`) therefore sees 1/2. Bonuses at tokens (`entropy_advantage`) stay out.

    Parameters
    ----------
    estimator
        Any estimator.
    group_size
        G, at least 1.

    Returns
    -------
    Fingerprint
        Arrays of shape (G + 1,), float64.

    Raises
    ------
    ParameterError
        When ``group_size`` is not a positive integer, or the estimator refuses groups of that size (`pass_at_k`).

    References
    ----------
    arXiv:2604.04894, Fig. 1a and 1b, for ``positive`` and ``negative`` over ``accuracy``.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> found = fingerprint(get("grpo"), group_size=2)
    >>> found.positive, found.negative
    (array([nan,  1.,  0.]), array([ 0., -1., nan]))
    >>> found.mass_positive, found.mass_negative, found.mean
    (array([0. , 0.5, 0. ]), array([0. , 0.5, 0. ]), array([0., 0., 0.]))
    """
    if Whole(1).accept(group_size) is None:
        raise ParameterError("fingerprint", f"group_size is {group_size!r}", str(Whole(1)))
    counts = np.arange(group_size + 1)
    rewards = (np.arange(group_size) < counts[:, None]).astype(np.float64)  # row c: c correct rollouts, then the wrong
    advantage = estimator(rewards)
    accuracy = counts / group_size
    return Fingerprint(
        accuracy=accuracy,
        positive=np.where(counts > 0, advantage[:, 0], np.nan),
        negative=np.where(counts < group_size, advantage[:, -1], np.nan),
        mean=advantage.mean(axis=1),
        mass_positive=np.sum(rewards * advantage, axis=1) / group_size,
        mass_negative=np.sum((rewards - 1) * advantage, axis=1) / group_size + 0.0,  # -0.0 would print as "-0."
    )
