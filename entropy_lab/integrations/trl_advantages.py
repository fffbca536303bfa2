"""From the rewards of all processes to the advantages that TRL's loss gets."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entropy_lab.advantages import Estimator
from entropy_lab.errors import ParameterError


def of_all(estimator: Estimator, reward_N: Tensor, told_N: Tensor, group_size: int) -> NDArray[np.float64]:
    """Give the advantages of N rollouts, `group_size` neighbours a group; 0 where no reward could be told.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> told = torch.tensor([True, True, False, True])
    >>> of_all(get("asym_grpo"), torch.tensor([1.0, 0.0, 0.0, 1.0]), told, group_size=2)
    array([ 1., -1.,  0.,  0.])
    """
    group_N, told = np.arange(len(reward_N)) // group_size, told_N.cpu().numpy()
    advantage_N = np.zeros(len(reward_N))
    advantage_N[told] = estimator(reward_N.double().cpu().numpy()[told], group_N[told])
    return advantage_N


def for_loss(
    estimator: Estimator, advantage_B: NDArray[np.float64], entropy_BT: Tensor | None, mask_BT: Tensor
) -> Tensor:
    """Give what the loss takes: (B,), or (B, T) where the estimator tells tokens apart.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> for_loss(get("entropy_advantage"), np.array([1.0]), torch.tensor([[0.5, 9.0]]), torch.tensor([[1, 0]]))
    tensor([[1.2000, 0.0000]], dtype=torch.float64)
    """
    if estimator.token_advantage is None:
        return torch.from_numpy(advantage_B)
    if entropy_BT is None:
        raise ParameterError(estimator.name, "token entropies are missing", "a forward pass before")
    entropy, mask = (each.detach().float().cpu().numpy() for each in (entropy_BT, mask_BT))
    return torch.from_numpy(estimator.at_tokens(advantage_B, entropy, mask))


def log_instead(logged: MutableSequence[Any], advantage_N: NDArray[np.float64]) -> None:
    """Put advantages in the place of the last N that TRL has noted for its table of completions.

    Examples
    --------
    >>> logged = [0.5, 0.7, -0.7]
    >>> log_instead(logged, np.array([1.0, -1.0]))
    >>> logged
    [0.5, 1.0, -1.0]
    """
    for _ in range(min(len(logged), len(advantage_N))):
        logged.pop()
    logged.extend(advantage_N.tolist())
