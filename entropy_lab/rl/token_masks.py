"""Which tokens count in the loss: forking tokens."""

from __future__ import annotations

import torch

from entropy_lab.advantages.token_modulation import highest
from entropy_lab.errors import ParameterError


def forking_tokens(entropy_BT: torch.Tensor, mask_BT: torch.Tensor, share: float) -> torch.Tensor:
    """Keep the tokens where the policy hesitates: those with the highest entropy of the mini-batch.

    Exactly ``ceil(share N)`` of the N tokens inside the mask. In the loss only these count, in what is summed and in
    the tokens it is divided by.

    Parameters
    ----------
    entropy_BT
        Entropy of each token's distribution in nats, of the policy being updated; read inside the mask only.
    mask_BT
        True at response tokens.
    share
        From 0, without, to 1; 1 keeps all.

    Returns
    -------
    Tensor
        Bool, shape (B, T). Of tokens with equal entropy the earlier one goes first, rollout by rollout.

    Raises
    ------
    ParameterError
        When `share` is outside its range.

    References
    ----------
    arXiv 2506.01939, which trains on the top 20 % and reads the entropy from the current policy.

    Examples
    --------
    >>> entropy_BT = torch.tensor([[0.1, 2.0, 0.3], [0.4, 9.0, 9.0]])
    >>> mask_BT = torch.tensor([[True, True, True], [True, False, False]])
    >>> forking_tokens(entropy_BT, mask_BT, 0.3).tolist()
    [[False, True, False], [True, False, False]]
    """
    if not 0 < share <= 1:
        raise ParameterError("forking_share", f"is {share}", "above 0, to 1")
    chosen = highest(entropy_BT.detach().cpu().numpy(), mask_BT.cpu().numpy(), share)
    return torch.from_numpy(chosen).to(mask_BT.device)
