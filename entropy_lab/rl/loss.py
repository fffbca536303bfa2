"""The PPO clipped surrogate per token, and how token losses become one number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch

from entropy_lab.errors import ParameterError

AGGREGATIONS: Final = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm")


def token_weights(
    mask_BT: torch.Tensor, keep_B: torch.Tensor, aggregation: str, max_new_tokens: int | None = None
) -> torch.Tensor:
    """Weight of each token in the loss of a mini-batch, so that the loss is the weighted sum of the token losses.

    With N the kept response tokens, R the kept rows and n_b the tokens of row b, the weight of a kept token is
    ``1 / N`` (``token-mean``), ``1 / (R n_b)`` (``seq-mean-token-mean``, GRPO as published) or
    ``1 / (R max_new_tokens)`` (``seq-mean-token-sum-norm``, Dr. GRPO). The weights of the whole mini-batch are made at
    once; any cut into micro-batches then adds up to the same gradient.

    Parameters
    ----------
    mask_BT
        True at response tokens.
    keep_B
        False for rollouts that do not count at all, neither in the sum nor in what it is divided by.
    aggregation
        One of `AGGREGATIONS`.
    max_new_tokens
        The length limit that ``seq-mean-token-sum-norm`` divides by; the other two ignore it.

    Returns
    -------
    Tensor
        Float32, shape (B, T), 0 at padding and in rows not kept; all 0 when no row is kept. The sum is 1 but for
        ``seq-mean-token-sum-norm``.

    Raises
    ------
    ParameterError
        When there is no such aggregation, or its `max_new_tokens` is missing.

    References
    ----------
    arXiv 2503.20783 for the division by a constant length.

    Examples
    --------
    >>> mask_BT = torch.tensor([[True, False], [True, True]])
    >>> token_weights(mask_BT, torch.tensor([True, True]), "seq-mean-token-mean").tolist()
    [[0.5, 0.0], [0.25, 0.25]]
    """
    kept_BT = (mask_BT & keep_B[:, None]).float()
    n_rows = keep_B.sum().clamp(min=1)
    if aggregation == "token-mean":
        return kept_BT / kept_BT.sum().clamp(min=1)
    if aggregation == "seq-mean-token-mean":
        return kept_BT / kept_BT.sum(1, keepdim=True).clamp(min=1) / n_rows
    if aggregation == "seq-mean-token-sum-norm" and max_new_tokens is not None:
        return kept_BT / max_new_tokens / n_rows
    raise ParameterError(
        "aggregation", f"is {aggregation!r}", f"one of {', '.join(AGGREGATIONS)} (with max_new_tokens)"
    )


@dataclass(frozen=True)
class Surrogate:
    """Token losses with what the clip did to them, each of shape (B, T).

    Parameters
    ----------
    loss_BT
        ``-min(ratio A, clip(ratio) A)``, to be minimised; with a dual clip at most ``-dual_clip A`` where A < 0.
    ratio_BT
        ``pi_theta(token) / pi_old(token)``, without gradient.
    clipped_low_BT, clipped_high_BT
        True where the clip is active, that is, where it takes the gradient away: A < 0 with the ratio below
        ``1 - clip_low``, and A > 0 with the ratio above ``1 + clip_high``.
    clipped_dual_BT
        True where the dual clip does: A < 0 with the ratio above `dual_clip`.
    """

    loss_BT: torch.Tensor
    ratio_BT: torch.Tensor
    clipped_low_BT: torch.Tensor
    clipped_high_BT: torch.Tensor
    clipped_dual_BT: torch.Tensor


def clipped_surrogate(
    logp_BT: torch.Tensor,
    old_logp_BT: torch.Tensor,
    advantage_BT: torch.Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float = math.inf,
) -> Surrogate:
    """PPO's clipped objective for each token, negated.

    ``ratio = exp(logp - old_logp)``, ``loss = -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A)``. At
    ``logp = old_logp`` its gradient is that of ``-A logp``, REINFORCE's. Where A < 0 the loss grows with the ratio
    without bound; a dual clip ends it at ``-dual_clip A``.

    Parameters
    ----------
    logp_BT
        Log-probability of each token under the policy being updated, with gradient, in nats.
    old_logp_BT
        The same under the policy that the update began with.
    advantage_BT
        Advantage of each token.
    clip_low, clip_high
        Width of the clip range below and above 1; with 1 and infinity nothing is clipped.
    dual_clip
        Ratio above which a token of negative advantage has no more gradient, above 1; infinity for none.

    Returns
    -------
    Surrogate
        Padding is not masked: `token_weights` does that.

    References
    ----------
    arXiv 1707.06347, Eq. 7; arXiv 2503.14476 for two different widths (Clip-higher); arXiv 1912.09729 for the dual
    clip, with 3.

    Examples
    --------
    >>> ratio = torch.tensor([[0.5, 2.0, 2.0]])
    >>> out = clipped_surrogate(ratio.log(), torch.zeros(1, 3), torch.tensor([[-1.0, 1.0, -1.0]]), 0.2, 0.28)
    >>> [[round(loss, 4) for loss in row] for row in out.loss_BT.tolist()]
    [[0.8, -1.28, 2.0]]
    >>> out.clipped_low_BT.tolist(), out.clipped_high_BT.tolist()
    ([[True, False, False]], [[False, True, False]])
    >>> clipped_surrogate(torch.tensor([[3.0]]).log(), torch.zeros(1, 1), -torch.ones(1, 1), 0.2, 0.28, 2.5).loss_BT
    tensor([[2.5000]])
    """
    ratio_BT = (logp_BT - old_logp_BT).exp()
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    loss_BT = -torch.minimum(ratio_BT * advantage_BT, clipped_BT * advantage_BT)
    ratio_BT = ratio_BT.detach()
    clipped_dual_BT = (advantage_BT < 0) & (ratio_BT > dual_clip)
    if dual_clip < math.inf:
        loss_BT = torch.where(clipped_dual_BT, -dual_clip * advantage_BT, loss_BT)
    return Surrogate(
        loss_BT,
        ratio_BT,
        clipped_low_BT=(advantage_BT < 0) & (ratio_BT < 1 - clip_low),
        clipped_high_BT=(advantage_BT > 0) & (ratio_BT > 1 + clip_high),
        clipped_dual_BT=clipped_dual_BT,
    )
