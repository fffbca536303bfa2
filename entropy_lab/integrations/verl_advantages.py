"""Our estimators as verl calls them: from rewards by token and uids to advantages by token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entropy_lab.advantages import Estimator
from entropy_lab.errors import ParameterError
from entropy_lab.integrations.entropy_need import needs_entropies
from entropy_lab.integrations.verl_names import advantage_of


@dataclass(frozen=True)
class Update:
    """What our trainer knows of an update, and verl tells no estimator."""

    estimator: Estimator
    final_B: NDArray[np.int64]
    """Row of the last output of each row's session: agent loops may have several outputs."""
    padding_B: NDArray[np.bool_]
    """True for rows that only fill up the batch."""
    entropy_BT: Tensor | None = None
    """Token entropies, where the estimator reads them."""


_UPDATE: Final[ContextVar[Update | None]] = ContextVar("update", default=None)


@contextmanager
def telling(update: Update) -> Iterator[None]:
    """Tell the registered estimators what verl does not, while verl calls one of them.

    Parameters
    ----------
    update
        Of the rows that verl is going to pass, in their order.
    """
    token = _UPDATE.set(update)
    try:
        yield
    finally:
        _UPDATE.reset(token)


class RegisteredEstimator:
    """One of our estimators, in the form that verl's registry takes.

    Parameters
    ----------
    name
        In our registry.
    own_keys
        Gives verl's own keys of the section ``algorithm``.

    Examples
    --------
    >>> asym_grpo = RegisteredEstimator("asym_grpo", lambda: {"gamma"})
    >>> rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    >>> advantages, returns = asym_grpo(rewards, torch.tensor([[1, 1], [1, 0]]), config={}, index=["a", "a"])
    >>> advantages
    tensor([[ 1.,  1.],
            [-1.,  0.]])
    """

    def __init__(self, name: str, own_keys: Callable[[], Collection[str]]) -> None:
        self.name = self.__name__ = name
        self._own_keys = own_keys

    def __call__(
        self,
        token_level_rewards: Tensor,
        response_mask: Tensor,
        config: Mapping[str, Any] | None = None,
        index: Sequence[Any] | NDArray[Any] | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """Give advantages, and the same as returns, as verl's estimators of outcomes do.

        Parameters
        ----------
        token_level_rewards
            Shape (B, T); a rollout's reward is their sum.
        response_mask
            1 at tokens that the policy wrote, shape (B, T).
        config
            verl's section ``algorithm``.
        index
            Name of each rollout's group, shape (B,).

        Returns
        -------
        tuple of Tensor
            Shape (B, T) each, of the rewards' type and device; 0 outside the mask.

        Raises
        ------
        ParameterError
            There are no groups, the configuration has unknown parameters, rewards are outside the estimator's range, or
            the estimator needs what only our trainer tells.
        """
        if index is None:
            raise ParameterError(self.name, "got no uids", "the group of each rollout")
        reward_B = token_level_rewards.double().sum(-1).cpu().numpy()
        mask_BT = (response_mask != 0).cpu().numpy()
        uid_B = np.array([str(uid) for uid in index])
        update = _UPDATE.get() or self._update_of(config or {}, uid_B, mask_BT)
        level_B = by_session(update, reward_B, uid_B)
        entropy = None if update.entropy_BT is None else update.entropy_BT.double().cpu().numpy()
        token_BT = update.estimator.at_tokens(level_B, entropy, mask_BT)
        advantage_BT = torch.from_numpy(token_BT).to(token_level_rewards)
        return advantage_BT, advantage_BT

    def _update_of(self, config: Mapping[str, Any], uid_B: NDArray[np.str_], mask_BT: NDArray[np.bool_]) -> Update:
        """Make do without our trainer: all rows are rollouts, but those that verl marks as padding by their uid."""
        modulation = advantage_of(self.name, config, self._own_keys())
        if needs_entropies(modulation):
            wrong = "needs entropies or the step, which verl tells no estimator"
            raise ParameterError(self.name, wrong, "our trainer", "trainer.v1.trainer_mode=entropy_lab")
        padding_B = np.char.startswith(uid_B, "pad") & ~mask_BT.any(1)
        return Update(modulation.initial, np.arange(len(uid_B)), padding_B)


def by_session(update: Update, reward_B: NDArray[np.float64], uid_B: NDArray[np.str_]) -> NDArray[np.float64]:
    """Give every row the advantage of its session's last output; 0 to padding, which belongs to no group.

    Parameters
    ----------
    update
        Its estimator, which rows are last outputs and which are padding.
    reward_B
        Shape (B,).
    uid_B
        Name of the group, shape (B,).

    Returns
    -------
    ndarray
        Shape (B,).

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> update = Update(get("dr_grpo"), np.array([1, 1, 2, 3]), np.array([False, False, False, True]))
    >>> by_session(update, np.array([0.0, 1.0, 0.0, 0.0]), np.array(["a", "a", "a", "pad"]))
    array([ 0.5,  0.5, -0.5,  0. ])
    """
    counted_B = (update.final_B == np.arange(len(reward_B))) & ~update.padding_B
    level_B = np.zeros(len(reward_B))
    groups = np.unique(uid_B[counted_B], return_inverse=True)[1]
    level_B[counted_B] = update.estimator(reward_B[counted_B], groups)
    spread_B: NDArray[np.float64] = level_B[update.final_B]
    return spread_B
