"""Entropy advantage: any estimator, with a capped entropy bonus added at each token."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from entropy_lab.advantages.arrays import Array, Mask
from entropy_lab.advantages.estimator import Estimator


def token_bonus(advantage: Array, entropy: Array, *, alpha: float, kappa: float) -> Array:
    """Bonus of each token, for its advantage and its entropy.

    ``min(alpha H, |A| / kappa)``: with kappa above 1 it never turns the sign of an advantage. The entropy is a number
    here, so no gradient runs through it, as the paper has it.

    Parameters
    ----------
    advantage
        Advantages, shape (B, 1) for the rollouts' own, or (B, T).
    entropy
        Token entropies in nats, shape (B, T).
    alpha
        Advantage per nat.
    kappa
        The bonus is at most ``1/kappa`` of the advantage's size.

    Returns
    -------
    ndarray
        Shape (B, T), from 0 to ``|A| / kappa``.

    References
    ----------
    arXiv:2506.14758, Eq. 5.

    Examples
    --------
    >>> token_bonus(np.array([[-1.0]]), np.array([[0.5, 2.0]]), alpha=0.4, kappa=2.0)
    array([[0.2, 0.5]])
    """
    return np.minimum(alpha * entropy, np.abs(advantage) / kappa)


def _with_bonus(
    advantage: Array, entropy: Array, inside: Mask, *, base: Estimator, alpha: float, kappa: float
) -> Array:
    own = base.token_advantage(advantage, entropy, inside) if base.token_advantage else advantage
    return own + token_bonus(own, entropy, alpha=alpha, kappa=kappa)


def with_entropy_bonus(base: Estimator, alpha: float = 0.4, kappa: float = 2.0) -> Estimator:
    """Add the entropy bonus to an estimator.

    ``A_t = A + min(alpha H_t, |A| / kappa)`` at each token, A from ``base`` (the token's, where ``base`` tells tokens
    apart). The call itself, ``keep`` and the loss aggregation are those of ``base``; only ``at_tokens`` differs, and it
    needs token entropies.

    Parameters
    ----------
    base
        Gives the advantages.
    alpha
        Advantage per nat of entropy: 0.4 for GRPO in the paper.
    kappa
        Cap: the bonus is at most ``|A| / kappa``; above 1.

    Returns
    -------
    Estimator
        With the invariances of ``base``, which speak of the rollout level. A group of one gets what ``base`` gives it.

    References
    ----------
    arXiv:2506.14758, Eq. 5 and 6 (v4).

    Examples
    --------
    >>> from entropy_lab.advantages.centred import grpo
    >>> shaped = with_entropy_bonus(grpo())
    >>> shaped([[1, 0]])
    array([[ 1., -1.]])
    >>> shaped.at_tokens([1.0, -1.0], [[0.5, 2.0], [0.5, 2.0]], [[1, 1], [1, 0]])
    array([[ 1.2,  1.5],
           [-0.8,  0. ]])
    """
    return replace(
        base,
        name="entropy_advantage",
        params={"alpha": alpha, "kappa": kappa, "base": base.name},
        formula=f"A_t = A + min({alpha:g}·H_t, |A|/{kappa:g}); {base.formula}",
        reference=f"arXiv:2506.14758, Eq. 5-6; base: {base.reference}",
        label=f"{base.label} + entropy advantage",
        token_advantage=partial(_with_bonus, base=base, alpha=alpha, kappa=kappa),
    )
