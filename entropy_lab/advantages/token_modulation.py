"""Token-level modulation: AsymGRPO at the tokens with the highest entropy, GRPO at all others."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Annotated

import numpy as np

from entropy_lab.advantages.arrays import Array, Mask
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.parameters import Real
from entropy_lab.advantages.power import asym_grpo

PositiveBeta = Annotated[float, Real(0, open_at="low")]


def highest(entropy: Array, inside: Mask, share: float) -> Mask:
    """Select the response tokens with the highest entropy of a batch.

    Exactly ``ceil(share N)`` of the N tokens inside the mask. Of tokens with equal entropy the earlier one goes first,
    rollout by rollout and from the first token to the last, so that padding changes nothing.

    Parameters
    ----------
    entropy
        Token entropies in nats, shape (B, T); read inside the mask only.
    inside
        True at response tokens, shape (B, T).
    share
        From 0 to 1.

    Returns
    -------
    ndarray of bool
        Shape (B, T), True at the selected tokens; False outside the mask.

    References
    ----------
    arXiv:2506.01939, which calls them forking tokens.

    Examples
    --------
    >>> entropy = np.array([[0.1, 2.0, 0.3], [0.3, 9.0, 9.0]])
    >>> inside = np.array([[True, True, True], [True, False, False]])
    >>> highest(entropy, inside, share=0.5)
    array([[False,  True,  True],
           [False, False, False]])
    """
    tokens = np.flatnonzero(inside)
    n_selected = math.ceil(Fraction(str(share)) * tokens.size)  # as floats, 0.07 times 100 is 7.000000000000001
    order = np.argsort(-entropy.reshape(-1)[tokens], kind="stable")
    selected = np.zeros(inside.size, dtype=np.bool_)
    selected[tokens[order[:n_selected]]] = True
    return selected.reshape(inside.shape)


def _modulated(
    advantage: Array, entropy: Array, inside: Mask, *, beta_pos: float, beta_neg: float, share: float
) -> Array:
    # GRPO's advantage is the odds to the power 1/2, so its own power 2 beta is the odds to the power beta.
    beta = np.where(advantage > 0, beta_pos, beta_neg)
    modulated = np.sign(advantage) * np.abs(advantage) ** (2 * beta)
    return np.where(highest(entropy, inside, share), modulated, advantage)


def token_asym_grpo(
    beta_pos: PositiveBeta = 0.9,
    beta_neg: PositiveBeta = 0.4,
    share: Annotated[float, Real(0, 1)] = 0.2,
) -> Estimator:
    """AsymGRPO at the tokens where the policy hesitates, GRPO at all others.

    ``A_t = ((1−p)/p)^beta_pos`` for a token of a correct rollout and ``−(p/(1−p))^beta_neg`` for one of a wrong
    rollout where H_t is among the ``ceil(share N)`` highest of the batch's N response tokens (see `highest`); GRPO's
    advantage of the rollout elsewhere. The call itself gives GRPO's, which most tokens get; ``at_tokens`` needs token
    entropies. Tokens of groups without contrast count among the N although their advantage is 0.

    Parameters
    ----------
    beta_pos, beta_neg
        Exponents at the selected tokens; above 0, so that p of 0 and 1 have advantage 0 at every token.
    share
        Share of the batch's response tokens that is modulated: 0 is GRPO, 1 is AsymGRPO, 0.2 is the share of
        arXiv:2506.01939. That the modulation goes to these tokens only is ours: the paper names token-level criteria
        as open.

    Returns
    -------
    Estimator
        For rewards in {0, 1}; zero-sum at the rollout level, as GRPO. A group of one gets 0.

    References
    ----------
    arXiv:2604.04894, Eq. 10 and Limitations; arXiv:2506.01939 for the tokens.

    Examples
    --------
    >>> estimator = token_asym_grpo(beta_pos=1.0, beta_neg=1.0, share=0.25)
    >>> advantage = estimator([[1, 0, 0, 0, 0]])[0, :2]
    >>> advantage
    array([ 2. , -0.5])
    >>> estimator.at_tokens(advantage, [[0.9, 0.1], [0.2, 0.3]], [[1, 1], [1, 1]])
    array([[ 4. ,  2. ],
           [-0.5, -0.5]])
    """
    modulated = asym_grpo(beta_pos, beta_neg)
    where = f"at the {100 * share:g} % of tokens with the highest H_t"
    return replace(
        asym_grpo(beta_pos=0.5, beta_neg=0.5),
        name="token_asym_grpo",
        params={"beta_pos": beta_pos, "beta_neg": beta_neg, "share": share},
        formula=f"{modulated.formula.replace('A', 'A_t', 1)} {where}; A_t = (r − r̄) / s elsewhere",
        reference="arXiv:2604.04894, Eq. 10; tokens: arXiv:2506.01939",
        label=f"{modulated.label}, top {100 * share:g} % of tokens",
        token_advantage=partial(_modulated, beta_pos=beta_pos, beta_neg=beta_neg, share=share),
    )
