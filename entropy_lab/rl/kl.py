"""Kullback-Leibler divergence from a frozen reference policy, estimated token by token."""

from __future__ import annotations

from typing import Final

import torch

from entropy_lab.errors import ParameterError

KL_ESTIMATORS: Final = ("k1", "k2", "k3")


def kl_estimate(logp_BT: torch.Tensor, reference_logp_BT: torch.Tensor, estimator: str = "k3") -> torch.Tensor:
    """Estimate KL(policy || reference) from each sampled token.

    With ``d = logp - reference_logp``: ``k1 = d``, ``k2 = d^2 / 2``, ``k3 = exp(-d) - 1 + d``. Over tokens sampled from
    the policy, k1 and k3 have the divergence as their mean (k3 with little variance, and it is never negative), k2
    nearly. As a *loss* they differ: the mean gradient of k2 is that of KL(policy || reference), the one of k3 is that
    of KL(reference || policy), and the one of k1 is 0.

    Parameters
    ----------
    logp_BT
        Log-probability of each token under the policy, with gradient, in nats.
    reference_logp_BT
        The same under the reference.
    estimator
        One of `KL_ESTIMATORS`.

    Returns
    -------
    Tensor
        Shape (B, T), in nats; 0 where both agree. Padding is not masked.

    Raises
    ------
    ParameterError
        When there is no such estimator.

    References
    ----------
    k1, k2, k3: J. Schulman, Approximating KL divergence, 2020. k3 in the loss: GRPO, arXiv 2402.03300, Eq. 4. Their
    gradients: arXiv 2506.09477.

    Examples
    --------
    >>> logp_BT, reference_logp_BT = torch.tensor([[0.25, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> kl_estimate(logp_BT, reference_logp_BT)  # exp(log 2) - 1 - log 2
    tensor([[0.3069, 0.0000]])
    """
    difference_BT = logp_BT - reference_logp_BT
    if estimator == "k1":
        return difference_BT
    if estimator == "k2":
        return difference_BT.square() / 2
    if estimator == "k3":
        # expm1 rather than exp - 1: near the reference the estimate is the small difference of the two.
        return torch.expm1(-difference_BT) + difference_BT
    raise ParameterError("kl_estimator", f"is {estimator!r}", f"one of {', '.join(KL_ESTIMATORS)}")
