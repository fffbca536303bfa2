"""What each token of a mini-batch does in the loss, decided before the mini-batch is cut into micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from entropy_lab.errors import ParameterError
from entropy_lab.rl.covariance_clip import clip_cov_tokens, kl_cov_tokens, token_covariance
from entropy_lab.rl.logprobs import TokenScores, score
from entropy_lab.rl.loss import token_weights
from entropy_lab.rl.objective import Objective
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.token_masks import forking_tokens


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
    old_entropy_BT
        Entropy of each token's distribution under the policy that the update began with, in nats; read for forking
        tokens chosen by the old policy only.
    reference_logp_BT
        Log-probability of each token under the frozen reference policy, in nats; read when there is a `kl_coef`.
    """

    sequences: Sequences
    old_logp_BT: torch.Tensor
    advantage_BT: torch.Tensor
    keep_B: torch.Tensor
    old_entropy_BT: torch.Tensor | None = None
    reference_logp_BT: torch.Tensor | None = None


@dataclass(frozen=True)
class TokenRoles:
    """What each token of a mini-batch does in the loss, each of shape (B, T).

    Parameters
    ----------
    weight_BT
        Its weight, see `loss.token_weights`; 0 at padding, in rows not kept and at tokens that are not forking.
    spared_BT
        True where Clip-Cov takes the policy-gradient loss away.
    penalised_BT
        True where KL-Cov adds its penalty.
    """

    weight_BT: torch.Tensor
    spared_BT: torch.Tensor
    penalised_BT: torch.Tensor


def choosing_scores(
    model: nn.Module, batch: MiniBatch, objective: Objective, micro_batch: int = 64, micro_tokens: int = 0
) -> TokenScores:
    """Log-probabilities and entropies that the objective chooses tokens by.

    Those of `model` as it is, the current policy, as the papers of Clip-Cov, KL-Cov and forking tokens have it: one
    forward pass over the mini-batch without gradients. With ``choose_by="old"`` those of the policy that the update
    began with, for free; in an update's first mini-batch both are the same policy.

    Parameters
    ----------
    model
        The policy.
    batch
        B rollouts.
    objective
        Says whose.
    micro_batch, micro_tokens
        Most rows and most tokens of one forward pass.

    Returns
    -------
    TokenScores
        Without gradient. Entropies are 0 where the old policy's are unknown and not read.

    Raises
    ------
    ParameterError
        When forking tokens are to be chosen by entropies of the old policy that the batch does not have.
    """
    if objective.choose_by == "current" and objective.chooses_tokens:
        return score(model, batch.sequences, objective.temperature, micro_batch, micro_tokens)
    if batch.old_entropy_BT is not None:
        return TokenScores(batch.old_logp_BT, batch.old_entropy_BT)
    if objective.forking_share < 1:
        wrong = f"is {objective.forking_share} by the old policy, and the batch has no old_entropy_BT"
        raise ParameterError("forking_share", wrong, "both, or choose_by current")
    return TokenScores(batch.old_logp_BT, torch.zeros_like(batch.old_logp_BT))


def token_roles(
    batch: MiniBatch,
    objective: Objective,
    scores: TokenScores,
    rng: np.random.Generator | None = None,
) -> TokenRoles:
    """Decide over a whole mini-batch what each of its tokens does in the loss.

    Forking tokens come first: covariances, and the shares of Clip-Cov and KL-Cov, are of the tokens that count.

    Parameters
    ----------
    batch
        B rollouts.
    objective
        Aggregation, Clip-Cov, KL-Cov and share of forking tokens.
    scores
        Log-probabilities and entropies that tokens are chosen by.
    rng
        Source of randomness, for Clip-Cov only.

    Returns
    -------
    TokenRoles
        Of the B rollouts.

    Raises
    ------
    ParameterError
        When Clip-Cov has no `rng`.

    Examples
    --------
    >>> from entropy_lab.rl.covariance_clip import KlCov
    >>> sequences = Sequences.join([[5], [5]], [[6, 1], [7, 1]])
    >>> logp_BT, advantage_BT = torch.tensor([[-0.1, -0.2], [-3.0, -0.1]]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    >>> batch = MiniBatch(sequences, logp_BT, advantage_BT, torch.tensor([True, True]))
    >>> scores = TokenScores(logp_BT, -logp_BT)
    >>> token_roles(batch, Objective("token-mean", 2, forking_share=0.5), scores).weight_BT.tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    >>> token_roles(batch, Objective("token-mean", 2, kl_cov=KlCov()), scores).penalised_BT.tolist()
    [[False, False], [True, False]]
    """
    counts_BT = batch.sequences.mask_BT & batch.keep_B[:, None]
    if objective.forking_share < 1:
        counts_BT = forking_tokens(scores.entropy_BT, counts_BT, objective.forking_share)
    weight_BT = token_weights(counts_BT, batch.keep_B, objective.aggregation, objective.max_new_tokens)
    spared_BT = penalised_BT = torch.zeros_like(counts_BT)
    if objective.clip_cov is not None or objective.kl_cov is not None:
        covariance_BT = token_covariance(scores.logp_BT, batch.advantage_BT, counts_BT)
        if objective.kl_cov is not None:
            penalised_BT = kl_cov_tokens(covariance_BT, counts_BT, objective.kl_cov)
        if objective.clip_cov is not None:
            if rng is None:
                raise ParameterError("clip_cov", "has no rng", "a generator: its tokens are drawn at random")
            now = objective.surrogate(scores.logp_BT, batch.old_logp_BT, batch.advantage_BT)
            clipped_BT = now.clipped_low_BT | now.clipped_high_BT | now.clipped_dual_BT
            spared_BT = clip_cov_tokens(covariance_BT, counts_BT, clipped_BT, objective.clip_cov, rng)
    return TokenRoles(weight_BT, spared_BT, penalised_BT)
