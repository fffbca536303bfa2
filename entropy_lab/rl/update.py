"""Gradient of a mini-batch, added up over micro-batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from entropy_lab.errors import ParameterError
from entropy_lab.rl.covariance_clip import kl_cov_penalty
from entropy_lab.rl.hidden_states import shares_prompts
from entropy_lab.rl.kl import kl_estimate
from entropy_lab.rl.logprobs import TokenScores, token_scores
from entropy_lab.rl.micro_batches import micro_batches
from entropy_lab.rl.objective import Objective
from entropy_lab.rl.token_roles import MiniBatch, TokenRoles, choosing_scores, token_roles

__all__ = ["LossStatistics", "MiniBatch", "Objective", "accumulate_gradients", "clip_gradients"]


@dataclass(frozen=True)
class LossStatistics:
    """What one mini-batch's loss was made of.

    Parameters
    ----------
    loss
        The number minimised, entropy bonus and penalties included.
    clip_fraction_low, clip_fraction_high, clip_fraction_dual
        Share of the tokens that count whose gradient the clip took away, at each side and by the dual clip.
    ratio_min, ratio_max
        Extremes of pi_theta / pi_old over the tokens that had a backward pass; 1 when there was none.
    skipped
        Share of the rollouts whose gradient is zero, so that no pass was made for them.
    chosen_fraction
        Share of the tokens that count that Clip-Cov or KL-Cov chose; 0 without them.
    reference_kl
        Mean of the estimated divergence from the reference policy over the tokens that count, in nats; 0 without one.
    """

    loss: float
    clip_fraction_low: float
    clip_fraction_high: float
    ratio_min: float
    ratio_max: float
    skipped: float
    clip_fraction_dual: float = 0.0
    chosen_fraction: float = 0.0
    reference_kl: float = 0.0


def accumulate_gradients(
    model: nn.Module,
    batch: MiniBatch,
    objective: Objective,
    micro_batch: int = 64,
    rng: np.random.Generator | None = None,
    micro_tokens: int = 0,
) -> LossStatistics:
    """Add the gradient of a mini-batch's loss to the parameters' ``grad``.

    ``loss = sum_bt w[b, t] (surrogate[b, t] + penalties[b, t] - entropy_coef H[b, t])`` with the weights and choices of
    `token_roles` over the whole mini-batch: however it is cut into micro-batches, the gradient is that of the whole.

    Options that choose tokens cost one forward pass more, see `token_roles.choosing_scores`: the passes of the
    micro-batches each see a part of the tokens only.

    Parameters
    ----------
    model
        The policy.
    batch
        B rollouts. Rows whose gradient is zero get no pass, but stay in what the loss is divided by: without an entropy
        bonus, a penalty or a divergence those whose advantages are all zero.
    objective
        Clip range, aggregation, entropy bonus and the other options.
    micro_batch, micro_tokens
        Most rows and most tokens of one forward and backward pass, see `micro_batches`.
    rng
        Source of randomness, for Clip-Cov only.

    Returns
    -------
    LossStatistics
        Over the whole mini-batch. With no row kept, the loss is 0 and no gradient is added.

    Raises
    ------
    ParameterError
        When the objective needs what `batch` does not have, or Clip-Cov has no `rng`.
    """
    if objective.kl_coef and batch.reference_logp_BT is None:
        raise ParameterError("kl_coef", f"is {objective.kl_coef}, but the batch has no reference_logp_BT", "both, or 0")
    roles = token_roles(batch, objective, choosing_scores(model, batch, objective, micro_batch, micro_tokens), rng)
    counts_BT, chosen_BT = roles.weight_BT > 0, roles.spared_BT | roles.penalised_BT
    has_gradient_BT = ((batch.advantage_BT != 0) & ~roles.spared_BT) | roles.penalised_BT
    if objective.entropy_coef != 0 or objective.kl_coef != 0:
        has_gradient_BT = counts_BT
    active_B = (counts_BT & has_gradient_BT).any(1).nonzero()[:, 0]
    parts = []
    shared = shares_prompts(model)
    for index_B in micro_batches(batch.sequences, active_B, micro_batch, micro_tokens, shared=shared):
        scores = token_scores(model, batch.sequences.rows(index_B), objective.temperature)  # on the model's device
        # T of the micro-batch: its longest response is often shorter than the mini-batch's.
        columns_T = torch.arange(scores.logp_BT.shape[1], device=index_B.device)
        parts.append(_backward(scores, batch, objective, roles, (index_B[:, None], columns_T[None, :])))
    n_counts = max(1, int(counts_BT.sum()))
    return LossStatistics(
        loss=sum((part.loss for part in parts), 0.0),
        clip_fraction_low=sum(part.n_low for part in parts) / n_counts,
        clip_fraction_high=sum(part.n_high for part in parts) / n_counts,
        clip_fraction_dual=sum(part.n_dual for part in parts) / n_counts,
        ratio_min=min([1.0, *(part.ratio_min for part in parts)]),
        ratio_max=max([1.0, *(part.ratio_max for part in parts)]),
        skipped=1 - len(active_B) / len(counts_BT),
        chosen_fraction=int(chosen_BT.sum()) / n_counts,
        reference_kl=sum(part.kl for part in parts) / n_counts,
    )


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale the gradient down where it is larger than allowed, and refuse one that would ruin the weights.

    Parameters
    ----------
    model
        Its parameters' ``grad`` are changed in place.
    max_norm
        Largest norm, above 0.

    Returns
    -------
    float
        The norm before; 0 without a gradient.

    Raises
    ------
    ParameterError
        It is infinite or not a number: after a step along it every weight would be.

    Examples
    --------
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> layer(torch.full((1, 1), 4.0)).sum().backward()
    >>> clip_gradients(layer, max_norm=1.0), round(float(layer.weight.grad), 4)
    (4.0, 1.0)
    """
    norm = float(clip_grad_norm_(model.parameters(), max_norm))
    if not math.isfinite(norm):
        raise ParameterError(
            "gradient", f"has the norm {norm}", "a finite number", "a smaller lr; see the last metrics"
        )
    return norm


class _Part(NamedTuple):
    """Sums and extremes over the tokens of a micro-batch that count."""

    loss: float
    n_low: int
    n_high: int
    n_dual: int
    ratio_min: float
    ratio_max: float
    kl: float


def _backward(
    scores: TokenScores,
    batch: MiniBatch,
    objective: Objective,
    roles: TokenRoles,
    part_BT: tuple[torch.Tensor, torch.Tensor],
) -> _Part:
    def part(whole_BT: torch.Tensor) -> torch.Tensor:
        return whole_BT[part_BT].to(scores.logp_BT.device)

    logp_BT, old_logp_BT, weight_BT = scores.logp_BT, part(batch.old_logp_BT), part(roles.weight_BT)
    surrogate = objective.surrogate(logp_BT, old_logp_BT, part(batch.advantage_BT))
    # Options that are off leave no term, not one times 0: its backward pass would cost as much.
    loss_BT, kl_BT = surrogate.loss_BT, torch.zeros_like(weight_BT)
    if objective.clip_cov is not None:
        loss_BT = loss_BT.masked_fill(part(roles.spared_BT), 0)
    if objective.kl_cov is not None:
        loss_BT = loss_BT + kl_cov_penalty(logp_BT, old_logp_BT, part(roles.penalised_BT), objective.kl_cov.coef)
    if objective.entropy_coef != 0:
        loss_BT = loss_BT - objective.entropy_coef * scores.entropy_BT
    if objective.kl_coef != 0 and batch.reference_logp_BT is not None:
        kl_BT = kl_estimate(logp_BT, part(batch.reference_logp_BT), objective.kl_estimator)
        loss_BT = loss_BT + objective.kl_coef * kl_BT
    loss = (weight_BT * loss_BT).sum()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    counts_BT = weight_BT > 0
    return _Part(
        loss.item(),
        int((surrogate.clipped_low_BT & counts_BT).sum()),
        int((surrogate.clipped_high_BT & counts_BT).sum()),
        int((surrogate.clipped_dual_BT & counts_BT).sum()),
        float(surrogate.ratio_BT[counts_BT].min()),
        float(surrogate.ratio_BT[counts_BT].max()),
        float(kl_BT.detach()[counts_BT].sum()),
    )
