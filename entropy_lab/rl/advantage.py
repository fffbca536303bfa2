"""Advantages of a batch as the loss takes them: tensors, of its rollouts and of their tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from entropy_lab.advantages import Estimator


@dataclass(frozen=True)
class Advantage:
    """Advantages of B rollouts and of their tokens, and which rollouts count in the loss."""

    rollout_B: torch.Tensor
    """Rollout-level advantages, float32."""
    token_BT: torch.Tensor
    """Advantage of each response token, float32, 0 at padding."""
    keep_B: torch.Tensor
    """False for rollouts that the estimator leaves out."""


def advantages_of(
    estimator: Estimator, rewards: NDArray[np.float64], entropy_BT: torch.Tensor, mask_BT: torch.Tensor
) -> Advantage:
    """Ask the estimator, whichever it is.

    Parameters
    ----------
    estimator
        The estimator of the update.
    rewards
        Shape (groups, G), the rollouts of a group side by side.
    entropy_BT
        Token entropies in nats, read where ``mask_BT`` is True.
    mask_BT
        True at response tokens.

    Returns
    -------
    Advantage
        Of the B = groups x G rollouts.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> mask_BT = torch.tensor([[True, True], [True, False]])
    >>> found = advantages_of(get("grpo"), np.array([[1.0, 0.0]]), torch.zeros(2, 2), mask_BT)
    >>> found.rollout_B, found.token_BT.tolist(), found.keep_B.tolist()
    (tensor([ 1., -1.]), [[1.0, 1.0], [-1.0, 0.0]], [True, True])
    """
    rollout_B = estimator(rewards).reshape(-1)
    token_BT = estimator.at_tokens(rollout_B, entropy_BT.numpy(), mask_BT.numpy())
    keep_B = estimator.keep(rewards).reshape(-1)
    return Advantage(torch.from_numpy(rollout_B).float(), torch.from_numpy(token_BT).float(), torch.from_numpy(keep_B))
