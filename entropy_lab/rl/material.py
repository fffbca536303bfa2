"""An update's rollouts with all that the loss reads of them, and its mini-batches of whole groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from entropy_lab.rl.advantage import Advantage
from entropy_lab.rl.logprobs import TokenScores
from entropy_lab.rl.record import Batch
from entropy_lab.rl.update import MiniBatch


@dataclass(frozen=True)
class Material:
    """What an update is made of; one row a rollout, on the processor."""

    batch: Batch
    """The rollouts."""
    before: TokenScores
    """Under the policy that the update begins with."""
    advantage: Advantage
    """Of rollouts and tokens."""
    reference_logp_BT: torch.Tensor | None = None
    """Log-probability of each token under the reference policy; None without one."""

    def of_prompts(self, prompts_p: torch.Tensor) -> MiniBatch:
        """Take the groups of some prompts.

        Parameters
        ----------
        prompts_p
            Numbers of the prompts, from 0.

        Returns
        -------
        MiniBatch
            Their rollouts, group by group, without the columns that only longer rows need.
        """
        group_size = self.batch.rewards.shape[1]
        rows_b = (prompts_p[:, None] * group_size + torch.arange(group_size)).reshape(-1)
        sequences = self.batch.sequences.rows(rows_b)
        width = sequences.mask_BT.shape[1]
        return MiniBatch(
            sequences,
            self.before.logp_BT[rows_b, :width],
            self.advantage.token_BT[rows_b, :width],
            self.advantage.keep_B[rows_b],
            old_entropy_BT=self.before.entropy_BT[rows_b, :width],
            reference_logp_BT=None if self.reference_logp_BT is None else self.reference_logp_BT[rows_b, :width],
        )
