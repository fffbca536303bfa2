"""Constant weights by outcome: PSR, NSR and W-REINFORCE."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from entropy_lab.advantages.arrays import Array, Mask
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.parameters import Real


def _weighted(rewards: Array, _batch_mean: float, *, positive: float, negative: float) -> Array:
    return np.where(rewards == 1, positive, -negative)


def _correct(rewards: Array) -> Mask:
    kept: Mask = rewards == 1
    return kept


def _wrong(rewards: Array) -> Mask:
    kept: Mask = rewards == 0
    return kept


def psr() -> Estimator:
    """Positive sample reinforcement: correct rollouts only.

    ``A = +1`` for a correct rollout; wrong ones are dropped (their advantage reads 0, and ``keep`` leaves them out of
    the token mean's denominator).

    Returns
    -------
    Estimator
        For rewards in {0, 1}. A group of one gets 1 or is dropped.

    References
    ----------
    arXiv:2506.01347, Eq. 3.

    Examples
    --------
    >>> psr()([[1, 0, 1]]), psr().keep([[1, 0, 1]])
    (array([[1., 0., 1.]]), array([[ True, False,  True]]))
    """
    return Estimator(
        name="psr",
        params={},
        formula="A = 1 if r = 1, dropped if r = 0",
        reference="arXiv:2506.01347, Eq. 3",
        label="PSR",
        kernel=partial(_weighted, positive=1.0, negative=0.0),
        binary=True,
        kept=_correct,
    )


def nsr() -> Estimator:
    """Negative sample reinforcement: wrong rollouts only.

    ``A = −1`` for a wrong rollout; correct ones are dropped (their advantage reads 0, and ``keep`` leaves them out of
    the token mean's denominator).

    Returns
    -------
    Estimator
        For rewards in {0, 1}. A group of one gets −1 or is dropped.

    References
    ----------
    arXiv:2506.01347, Eq. 3.

    Examples
    --------
    >>> nsr()([[1, 0, 1]]), nsr().keep([[1, 0, 1]])
    (array([[ 0., -1.,  0.]]), array([[False,  True, False]]))
    """
    return Estimator(
        name="nsr",
        params={},
        formula="A = −1 if r = 0, dropped if r = 1",
        reference="arXiv:2506.01347, Eq. 3",
        label="NSR",
        kernel=partial(_weighted, positive=0.0, negative=1.0),
        binary=True,
        kept=_wrong,
    )


def w_reinforce(lam: Annotated[float, Real(0)] = 0.1) -> Estimator:
    """W-REINFORCE: REINFORCE with correct rollouts weighted down.

    ``A = lam`` for a correct rollout, −1 for a wrong one. ``lam`` 1 is REINFORCE; ``lam`` 0 gives the advantages of
    NSR, but all rollouts stay in the token mean's denominator.

    Parameters
    ----------
    lam
        Weight of the correct rollouts.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. A group of one gets ``lam`` or −1 like any other.

    References
    ----------
    arXiv:2506.01347, the W-REINFORCE objective.

    Examples
    --------
    >>> w_reinforce()([[1, 0, 0]])
    array([[ 0.1, -1. , -1. ]])
    """
    return Estimator(
        name="w_reinforce",
        params={"lam": lam},
        formula=f"A = {lam:g} if r = 1, −1 if r = 0",
        reference="arXiv:2506.01347, the W-REINFORCE objective",
        label=f"W-REINFORCE {lam:g}",
        kernel=partial(_weighted, positive=lam, negative=1.0),
        binary=True,
    )
