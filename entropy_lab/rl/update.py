"""Gradient of a mini-batch, added up over micro-batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from entropy_lab.errors import ParameterError
from entropy_lab.rl.logprobs import Sequences, token_scores
from entropy_lab.rl.loss import clipped_surrogate, token_weights


@dataclass(frozen=True)
class Objective:
    """What an update maximises.

    Raises
    ------
    ParameterError
        When a clip width is negative, `clip_low` is above 1, or `entropy_coef` is not finite.

    Examples
    --------
    >>> Objective(aggregation="token-mean", max_new_tokens=26).clip_high
    0.2
    """

    aggregation: str
    """How token losses become one number, see `loss.AGGREGATIONS`."""
    max_new_tokens: int
    """Length limit of a response."""
    clip_low: float = 0.2
    """Width of the clip range below 1."""
    clip_high: float = 0.2
    """Width of the clip range above 1."""
    entropy_coef: float = 0.0
    """Weight of the policy entropy, aggregated as the token losses are, in what is maximised."""
    temperature: float = 1.0
    """The sampling temperature, at which log-probabilities and entropy are taken."""

    def __post_init__(self) -> None:
        if not 0 <= self.clip_low <= 1:
            raise ParameterError("clip_low", f"is {self.clip_low}", "0 to 1: a ratio is never negative")
        if not self.clip_high >= 0:
            raise ParameterError("clip_high", f"is {self.clip_high}", "0 or more")
        if not math.isfinite(self.entropy_coef):
            raise ParameterError("entropy_coef", f"is {self.entropy_coef}", "a finite number")


@dataclass(frozen=True)
class MiniBatch:
    """Rollouts of one gradient step.

    Parameters
    ----------
    sequences
        Prompts and responses of B rollouts.
    old_logp_BT
        Log-probability of each token under the policy that the update began with, in nats.
    advantage_BT
        Advantage of each token.
    keep_B
        False for rollouts that do not count in the loss at all.
    """

    sequences: Sequences
    old_logp_BT: torch.Tensor
    advantage_BT: torch.Tensor
    keep_B: torch.Tensor


@dataclass(frozen=True)
class LossStatistics:
    """What one mini-batch's loss was made of.

    Parameters
    ----------
    loss
        The number minimised, entropy bonus included.
    clip_fraction_low, clip_fraction_high
        Share of the kept response tokens whose gradient the clip took away, at each side.
    ratio_min, ratio_max
        Extremes of pi_theta / pi_old over the tokens that had a backward pass; 1 when there was none.
    n_rows_skipped
        Rollouts whose gradient is zero, so that no pass was made for them.
    """

    loss: float
    clip_fraction_low: float
    clip_fraction_high: float
    ratio_min: float
    ratio_max: float
    n_rows_skipped: int


def accumulate_gradients(
    model: nn.Module, batch: MiniBatch, objective: Objective, micro_batch: int = 64
) -> LossStatistics:
    """Add the gradient of a mini-batch's loss to the parameters' ``grad``.

    ``loss = sum_bt w[b, t] (surrogate[b, t] - entropy_coef H[b, t])`` with the weights of `token_weights` over the
    whole mini-batch: however it is cut into micro-batches, the gradient is that of the whole.

    Parameters
    ----------
    model
        The policy.
    batch
        B rollouts. Rows whose advantages are all zero get no pass when there is no entropy bonus, but stay in what
        the loss is divided by.
    objective
        Clip range, aggregation and entropy bonus.
    micro_batch
        Rows of one forward and backward pass.

    Returns
    -------
    LossStatistics
        Over the whole mini-batch. With no row kept, the loss is 0 and no gradient is added.
    """
    mask_BT = batch.sequences.mask_BT
    weight_BT = token_weights(mask_BT, batch.keep_B, objective.aggregation, objective.max_new_tokens)
    active_BT = (weight_BT > 0) & ((batch.advantage_BT != 0) | (objective.entropy_coef != 0))
    active_B = active_BT.any(1).nonzero()[:, 0]
    loss, n_low, n_high, ratio_min, ratio_max = 0.0, 0, 0, 1.0, 1.0
    for index_B in batch.sequences.micro_batches(active_B, micro_batch):
        logp_BT, entropy_BT = token_scores(model, batch.sequences.rows(index_B), objective.temperature)
        # T of the micro-batch: its longest response is often shorter than the mini-batch's.
        part_BT = (index_B[:, None], torch.arange(logp_BT.shape[1])[None, :])
        surrogate = clipped_surrogate(
            logp_BT, batch.old_logp_BT[part_BT], batch.advantage_BT[part_BT], objective.clip_low, objective.clip_high
        )
        token_loss_BT = surrogate.loss_BT - objective.entropy_coef * entropy_BT
        part_loss = (weight_BT[part_BT] * token_loss_BT).sum()
        part_loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        kept_BT = weight_BT[part_BT] > 0
        loss += part_loss.item()
        n_low += int((surrogate.clipped_low_BT & kept_BT).sum())
        n_high += int((surrogate.clipped_high_BT & kept_BT).sum())
        ratio_min = min(ratio_min, float(surrogate.ratio_BT[kept_BT].min()))
        ratio_max = max(ratio_max, float(surrogate.ratio_BT[kept_BT].max()))
    n_kept = max(1, int((mask_BT & batch.keep_B[:, None]).sum()))
    n_skipped = len(mask_BT) - len(active_B)
    return LossStatistics(loss, n_low / n_kept, n_high / n_kept, ratio_min, ratio_max, n_skipped)
