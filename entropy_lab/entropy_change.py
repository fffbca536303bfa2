"""What one update does to entropy: exact rates of a softmax policy, and estimates from recorded rollouts.

A policy over actions with logits z and step dz changes its entropy, to first order, by ``dH = -Cov_π(log π, dz)``.
Between two policies the change is exactly ``-Σ (π_new - π_old)(log π_old + c) - KL(π_new ‖ π_old)`` for any constant c.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.covariance import group_centred
from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_RATIO: Final = 10.0
"""Probability ratios are cut off here: one long response whose likelihood exploded would outweigh all others."""
_BIN_TOKENS: Final = 50
_MOST_BINS: Final = 32


def natural_gradient_rate(p: FloatArray, advantage: FloatArray) -> float:
    """Entropy change per unit step of the natural policy gradient, ``dz = η A``.

    ``dH/dη = -Cov_π(log π, A) = -Σ_a π_a (log π_a + H)(A_a - E A)``; a constant added to A cancels.

    Parameters
    ----------
    p
        Probabilities of the actions, positive, shape (actions,).
    advantage
        Advantage of each action, shape (actions,).

    Returns
    -------
    float
        Nats per unit of η.

    References
    ----------
    arXiv 2604.04894, Eq. 9.

    Examples
    --------
    >>> p, a = np.array([0.8, 0.2]), np.array([0.2, -0.8])
    >>> round(natural_gradient_rate(p, a), 6), round(natural_gradient_rate(p, a + 5), 6)
    (-0.221807, -0.221807)
    """
    log_p = np.log(p)
    return float(-(p * (log_p - p @ log_p)) @ (advantage - p @ advantage))


def vanilla_gradient_rate(p: FloatArray, advantage: FloatArray) -> float:
    """Entropy change per unit step of the policy gradient on the logits, ``dz_a = η π_a (A_a - E A)``.

    ``dH/dη = -Σ_a π_a² (A_a - E A)(log π_a + H)``. The covariance of log π with ``π A`` is this only for centred A.

    Parameters
    ----------
    p, advantage
        As for `natural_gradient_rate`.

    Returns
    -------
    float
        Nats per unit of η.

    Examples
    --------
    The proxy ``(1 - π)² (log π + H)`` drops cross terms: here it says -0.115340.

    >>> p, a = np.array([0.8, 0.2]), np.array([0.2, -0.8])
    >>> [round(vanilla_gradient_rate(p, a + constant), 6) for constant in (0, 0.5, 1)]
    [-0.070978, -0.070978, -0.070978]
    """
    log_p = np.log(p)
    return float(-(p**2 * (advantage - p @ advantage)) @ (log_p - p @ log_p))


def sampled_token_rate(p: FloatArray, token: int) -> float:
    """Entropy change per unit step and advantage when one token is sampled, ``dz_a = η A (1[a = k] - π_a)``.

    ``dH/(η A) = -(S_k - Σ_a π_a S_a)`` with ``S_a = π_a (log π_a + H)``; its mean over tokens drawn from π is 0.

    Parameters
    ----------
    p
        As for `natural_gradient_rate`.
    token
        k, the index of the sampled token.

    Returns
    -------
    float
        Nats per unit of η and of A: raising a likely token lowers entropy, raising an unlikely one raises it.

    Examples
    --------
    >>> p = np.array([0.8, 0.2])
    >>> [round(sampled_token_rate(p, k), 4) for k in (0, 1)]
    [-0.0887, 0.3549]
    """
    log_p = np.log(p)
    score = p * (log_p - p @ log_p)
    return float(p @ score - score[token])


def covariance_contributions(x: FloatArray, advantage: FloatArray, starts: IntArray) -> FloatArray:
    """Each rollout's part in minus the covariance of its group: which rollouts lower entropy, by the natural gradient.

    ``c_i = -(x_i - mean_g x) A_i / (n_g - 1)``. x is centred, so that a constant added to the group's A changes the
    parts and not their sum, which is ``-group_covariance(x, A)``.

    Parameters
    ----------
    x
        Mean log-probability of each rollout's tokens, sorted by group, shape (rollouts,); NaN marks an absent value.
    advantage
        Shape (rollouts,).
    starts
        First row of each group, shape (groups,).

    Returns
    -------
    numpy.ndarray
        Shape (rollouts,), in nats/token per unit of η; NaN for incomplete rollouts, and for all of a group with fewer
        than two complete ones.

    References
    ----------
    arXiv 2604.04894, Eq. 9, 12 and 13.

    Examples
    --------
    >>> x, a = np.array([-1.0, -2.0, -3.0]), np.array([1.0, 0.0, -1.0])
    >>> covariance_contributions(x, a, np.array([0]))
    array([-0.5, -0. , -0.5])
    """
    if not len(starts):
        return np.zeros(0)
    complete = ~(np.isnan(x) | np.isnan(advantage))
    centred, n = group_centred(x, complete, starts)
    row_n = np.repeat(n, np.diff(starts, append=len(x)))
    parts = -centred * advantage / np.maximum(row_n - 1, 1)
    return np.where(complete & (row_n >= 2), parts, np.nan)


def increment_contributions(
    logp: FloatArray, logp_after: FloatArray, n_tokens: FloatArray, entropy: FloatArray
) -> FloatArray:
    """Each rollout's part in the entropy change that the update made, from its likelihood before and after.

    ``c_i = -(w_i - 1)(log π_old(y_i) + n_i h_i)`` with ``w_i = π_new(y_i)/π_old(y_i)`` and h_i the mean entropy of its
    tokens. The second factor has mean 0 at every state, so that for fresh rollouts of π_old, exactly,
    ``E[c] = E_{y ~ new} Σ_t [H_new(s_t) - H_old(s_t) + KL_t(new ‖ old)]``: the change at the states that the new policy
    visits. On the rollouts that were trained on it is too large, because the update moved them more than their likes.

    Parameters
    ----------
    logp, logp_after
        log π_old(y) and log π_new(y), sums over response tokens, shape (rollouts,).
    n_tokens
        Response tokens, shape (rollouts,).
    entropy
        Mean over response tokens of the full-vocabulary entropy of π_old, shape (rollouts,).

    Returns
    -------
    numpy.ndarray
        Shape (rollouts,), in nats a rollout; NaN where a value is absent. Ratios above 10 count as 10.

    Examples
    --------
    >>> one = np.ones(1)
    >>> increment_contributions(-2 * one, -2 * one + np.log(1.5), 4 * one, 0.75 * one)
    array([-0.5])
    """
    ratio = np.exp(np.minimum(logp_after - logp, np.log(MOST_RATIO)))
    return -(ratio - 1) * (logp + n_tokens * entropy)


def token_contributions(
    logp: FloatArray, entropy: FloatArray, advantage: FloatArray, group: IntArray, n_bins: int | None = None
) -> FloatArray:
    """Each token's part in the entropy change by the policy gradient on the logits of its own state.

    ``c_t = -A_t (S_t - b_t)`` with ``S = π (log π + H)``. ``b_t`` stands for ``Σ_a π_a S_a``, which is the mean of S at
    the state: the mean over tokens of about the same entropy (bins of equal size), then what is left of the mean over
    the group. So a constant added to a group's advantage changes the parts and not their sum.

    Parameters
    ----------
    logp, entropy
        log π_old of each token and entropy of π_old at it, shape (tokens,).
    advantage
        Of the rollout that the token is in, shape (tokens,).
    group
        Number of the token's group, from 0, shape (tokens,).
    n_bins
        Bins of entropy; None for one for every 50 tokens, 32 at most.

    Returns
    -------
    numpy.ndarray
        Shape (tokens,), nats per unit of η.

    Raises
    ------
    ParameterError
        ``n_bins`` is below 1.

    Examples
    --------
    >>> logp, entropy = np.log([0.8, 0.2]), np.full(2, 0.5004)
    >>> token_contributions(logp, entropy, np.array([1.0, -1.0]), np.zeros(2, np.int64)).round(3)
    array([-0.222, -0.222])
    """
    if n_bins is not None and n_bins < 1:
        raise ParameterError("n_bins", f"is {n_bins}", "1 or more")
    if not len(logp):
        return np.zeros(0)
    bins = n_bins or int(np.clip(len(logp) // _BIN_TOKENS, 1, _MOST_BINS))
    edges = np.quantile(entropy, np.arange(1, bins) / bins)
    score = np.exp(logp) * (logp + entropy)
    score = score - _means(score, np.searchsorted(edges, entropy))
    return -advantage * (score - _means(score, group))


def _means(values: FloatArray, group: NDArray[np.integer]) -> FloatArray:
    """Give each row the mean of its group."""
    means: FloatArray = (np.bincount(group, values) / np.maximum(np.bincount(group), 1))[group]
    return means
