"""Clip-Cov and KL-Cov: hold back the few tokens whose log-probability and advantage vary together the most."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import torch

from entropy_lab.errors import ParameterError

_ROUNDING: Final = 1e-5
"""Nats by which two float32 passes over the same token may differ."""


@dataclass(frozen=True)
class ClipCov:
    """Clip-Cov: a few random tokens of high covariance lose their policy-gradient loss.

    Raises
    ------
    ParameterError
        When `share` is not a share, or `low` is not below `high`.

    References
    ----------
    arXiv 2505.22617, Section 4 (Clip-Cov); the bounds 1 and 5 are those of the released code.

    Examples
    --------
    >>> ClipCov().count(20_000), ClipCov().count(100)
    (4, 1)
    """

    share: float = 2e-4
    """Share of the tokens that loses its loss."""
    low: float = 1.0
    """Covariance above which a token may be chosen."""
    high: float = 5.0
    """Covariance below which a token may be chosen."""

    def __post_init__(self) -> None:
        _require_share("clip_cov.share", self.share)
        if not self.low < self.high:
            raise ParameterError("clip_cov.low", f"is {self.low}", f"below clip_cov.high = {self.high}")

    def count(self, n_tokens: int) -> int:
        """Tokens to choose among `n_tokens` when enough have such a covariance: ``max(1, round(share n_tokens))``."""
        return max(1, round(Fraction(str(self.share)) * n_tokens))


@dataclass(frozen=True)
class KlCov:
    """KL-Cov: the tokens with the highest covariance pay for moving; nothing is clipped.

    Raises
    ------
    ParameterError
        When `share` is not a share, or `coef` is negative.

    References
    ----------
    arXiv 2505.22617, Section 4 (KL-Cov); the penalty |log-ratio| is that of the released code.

    Examples
    --------
    >>> KlCov().count(2_000), KlCov().count(100)
    (4, 1)
    """

    share: float = 2e-3
    """Share of the tokens that pays."""
    coef: float = 1.0
    """Price of a change of the log-probability by 1 nat."""

    def __post_init__(self) -> None:
        _require_share("kl_cov.share", self.share)
        if not 0 <= self.coef < float("inf"):
            raise ParameterError("kl_cov.coef", f"is {self.coef}", "0 or more, finite")

    def count(self, n_tokens: int) -> int:
        """Tokens that pay among `n_tokens`: ``max(1, floor(share n_tokens))``, none of none."""
        return min(n_tokens, max(1, int(Fraction(str(self.share)) * n_tokens)))


def _require_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ParameterError(name, f"is {share}", "above 0, to 1")


def token_covariance(logp_BT: torch.Tensor, advantage_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Each token's part in the covariance of log-probability and advantage over all tokens.

    ``cov[t] = (logp[t] - mean logp) (A[t] - mean A)`` with means over the tokens inside the mask; its mean is the
    covariance. A policy-gradient step raises likely tokens with high advantage, and lowers entropy, where it is large.

    Parameters
    ----------
    logp_BT
        Log-probability of each token in nats, shape (B, T).
    advantage_BT
        Advantage of each token.
    mask_BT
        True at the tokens that count.

    Returns
    -------
    Tensor
        Float64, shape (B, T), without gradient; 0 outside the mask, whatever stands there.

    References
    ----------
    arXiv 2505.22617, Section 4: the token-wise centred cross-product.

    Examples
    --------
    >>> logp_BT, advantage_BT = torch.tensor([[-1.0, -3.0, 9.0]]), torch.tensor([[1.0, 0.0, 9.0]])
    >>> token_covariance(logp_BT, advantage_BT, torch.tensor([[True, True, False]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    logp_N, advantage_N = logp_BT.detach()[mask_BT].double(), advantage_BT[mask_BT].double()
    covariance_N = (logp_N - logp_N.mean()) * (advantage_N - advantage_N.mean())
    zeros_BT = torch.zeros(mask_BT.shape, dtype=torch.float64, device=mask_BT.device)
    return zeros_BT.masked_scatter(mask_BT, covariance_N)


def clip_cov_tokens(
    covariance_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    clipped_BT: torch.Tensor,
    settings: ClipCov,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Choose the tokens that Clip-Cov takes the loss from.

    Of the N tokens inside the mask, ``max(1, round(share N))`` at random among those that PPO's clip leaves alone and
    whose covariance lies between `low` and `high`; all of these where they are fewer.

    Parameters
    ----------
    covariance_BT
        What `token_covariance` gives.
    mask_BT
        True at the tokens that count.
    clipped_BT
        True where PPO's clip is active already.
    settings
        Share and bounds.
    rng
        Source of randomness; nothing is drawn when no token qualifies.

    Returns
    -------
    Tensor
        Bool, shape (B, T); all False where no token has such a covariance.

    References
    ----------
    arXiv 2505.22617, Section 4 (Clip-Cov).

    Examples
    --------
    >>> covariance_BT = torch.tensor([[0.5, 2.0, 3.0, 6.0]])
    >>> inside_BT, clipped_BT = torch.ones(1, 4).bool(), torch.tensor([[False, False, True, False]])
    >>> clip_cov_tokens(covariance_BT, inside_BT, clipped_BT, ClipCov(share=0.5), np.random.default_rng(0)).tolist()
    [[False, True, False, False]]
    """
    candidate_BT = mask_BT & ~clipped_BT & (covariance_BT > settings.low) & (covariance_BT < settings.high)
    candidates = candidate_BT.flatten().nonzero()[:, 0].cpu().numpy()
    n_chosen = min(settings.count(int(mask_BT.sum())), len(candidates))
    chosen = rng.choice(candidates, n_chosen, replace=False) if n_chosen else candidates
    return _at(torch.from_numpy(chosen), mask_BT)


def kl_cov_tokens(covariance_BT: torch.Tensor, mask_BT: torch.Tensor, settings: KlCov) -> torch.Tensor:
    """Choose the tokens that KL-Cov penalises: those with the highest covariance.

    Parameters
    ----------
    covariance_BT
        What `token_covariance` gives.
    mask_BT
        True at the tokens that count, N of them.
    settings
        The share.

    Returns
    -------
    Tensor
        Bool, shape (B, T), True at ``max(1, floor(share N))`` tokens. Of equal tokens the earlier one, rollout by
        rollout, goes first, so that padding changes nothing.

    References
    ----------
    arXiv 2505.22617, Section 4 (KL-Cov).

    Examples
    --------
    >>> kl_cov_tokens(torch.tensor([[0.5, 2.0, 9.0]]), torch.tensor([[True, True, False]]), KlCov()).tolist()
    [[False, True, False]]
    """
    token_N = mask_BT.flatten().nonzero()[:, 0]
    order_N = covariance_BT[mask_BT].argsort(descending=True, stable=True)
    return _at(token_N[order_N[: settings.count(len(token_N))]], mask_BT)


def kl_cov_penalty(
    logp_BT: torch.Tensor, old_logp_BT: torch.Tensor, penalised_BT: torch.Tensor, coef: float
) -> torch.Tensor:
    """Price of moving the penalised tokens: ``coef |logp - old_logp|`` at these, 0 elsewhere.

    Its slope is +-coef however small the change. While the policy is the old one, a change is nothing but the rounding
    of two forward passes over differently cut batches, with a random sign: changes up to 1e-5 nats cost nothing, so
    that KL-Cov does nothing strictly on-policy. (That is float32; in bfloat16 passes differ by more.)

    Parameters
    ----------
    logp_BT
        Log-probability of each token under the policy being updated, with gradient, in nats.
    old_logp_BT
        The same under the policy that the update began with.
    penalised_BT
        What `kl_cov_tokens` gives.
    coef
        Price of 1 nat.

    Returns
    -------
    Tensor
        Shape (B, T), 0 or more, to be added to the token losses.

    References
    ----------
    arXiv 2505.22617, Section 4 (KL-Cov), with the absolute log-ratio of the released code for the divergence.

    Examples
    --------
    >>> logp_BT, penalised_BT = torch.tensor([[-1.0, -2.0, -0.5]]), torch.tensor([[True, True, False]])
    >>> kl_cov_penalty(logp_BT, torch.tensor([[-1.5, -2.0, -9.0]]), penalised_BT, coef=2.0).tolist()
    [[1.0, 0.0, 0.0]]
    """
    change_BT = (logp_BT - old_logp_BT).abs()
    return coef * change_BT.masked_fill(~penalised_BT | (change_BT <= _ROUNDING), 0)


def _at(index_M: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    chosen = torch.zeros(mask_BT.numel(), dtype=torch.bool, device=mask_BT.device)
    chosen[index_M.to(mask_BT.device)] = True
    return chosen.view(mask_BT.shape)
