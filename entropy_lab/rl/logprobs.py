"""Log-probability and exact entropy of every response token, from forward passes over prompt and response."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from torch import nn

from entropy_lab.rl.hidden_states import response_states, shares_prompts
from entropy_lab.rl.linear_logp import linear_logp_entropy
from entropy_lab.rl.micro_batches import micro_batches
from entropy_lab.rl.precision import compute_dtype, device_of
from entropy_lab.rl.sequences import Sequences

_FEW_LOGITS: Final = 2**20
"""Up to this many (4 MiB) they are made at once: beyond, blocks take less time too, and a tenth of the memory."""


class TokenScores(NamedTuple):
    """What a policy thinks of B responses, token by token; float32, shape (B, T), 0 at padding."""

    logp_BT: torch.Tensor
    """Log-probability of each token at the sampling temperature, in nats, at most 0."""
    entropy_BT: torch.Tensor
    """Entropy of the distribution each token was drawn from, in nats, 0 to log V."""


def token_scores(model: nn.Module, sequences: Sequences, temperature: float) -> TokenScores:
    """Log-probability of each response token and entropy of its distribution, in nats, with gradients.

    ``logp[b, t] = log softmax(logits / temperature)[token]`` and ``entropy[b, t] = -sum_v p_v log p_v`` over the whole
    vocabulary, both given the prompt and the response before t.

    Up to a million logits are made at once; more of them block by block, see `linear_logp_entropy`.

    Parameters
    ----------
    model
        Causal language model of transformers whose output layer is a matrix.
    sequences
        B rows, on any device.
    temperature
        The sampling temperature.

    Returns
    -------
    TokenScores
        T is the longest response; on the model's device.

    References
    ----------
    arXiv 2604.04894, Eq. 3.
    """
    causal: Any = model
    sequences = sequences.to(device_of(model))
    hidden_ND, token_N = response_states(model, sequences), sequences.response_ids_N
    output = causal.get_output_embeddings()
    logp_N, entropy_N = _logp_entropy(output, hidden_ND, token_N, temperature, compute_dtype(model))
    mask_BT = sequences.mask_BT
    padding_BT = torch.zeros(mask_BT.shape, device=mask_BT.device)
    return TokenScores(padding_BT.masked_scatter(mask_BT, logp_N), padding_BT.masked_scatter(mask_BT, entropy_N))


def _logp_entropy(
    output: nn.Linear, hidden_ND: torch.Tensor, token_N: torch.Tensor, temperature: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    if len(hidden_ND) * len(output.weight) > _FEW_LOGITS and output.bias is None:
        return linear_logp_entropy(hidden_ND.to(dtype), output.weight.to(dtype), token_N, temperature)
    if dtype == torch.float32:
        logits_NV = output(hidden_ND.to(output.weight.dtype)).float() / temperature
    else:  # as above: factors of the shorter type, float32 products; else log-probabilities would depend on the cut
        factors = hidden_ND.to(dtype).float(), output.weight.to(dtype).float()
        logits_NV = nn.functional.linear(*factors, output.bias) / temperature
    distribution_NV = torch.log_softmax(logits_NV, dim=-1)
    logp_N = distribution_NV.gather(1, token_N[:, None])[:, 0]
    return logp_N, -(distribution_NV.exp() * distribution_NV).sum(-1)


@torch.no_grad()
def score(
    model: nn.Module, sequences: Sequences, temperature: float, micro_batch: int = 64, micro_tokens: int = 0
) -> TokenScores:
    """Log-probability and entropy of every response token of a whole batch, in nats, without gradients.

    Parameters
    ----------
    model, sequences, temperature
        As in `token_scores`.
    micro_batch, micro_tokens
        Most rows and most tokens of one forward pass, see `micro_batches`.

    Returns
    -------
    TokenScores
        Rows in the order of `sequences`, and on their device.

    Examples
    --------
    >>> from entropy_lab.rl.model import ModelSizes, build_model
    >>> model = build_model(ModelSizes(), vocabulary_size=20, seed=0)
    >>> logp_BT, entropy_BT = score(model, Sequences.join([[5, 6], [7]], [[1], [8, 1]]), temperature=1.0)
    >>> logp_BT.shape, float(logp_BT[0, 1])
    (torch.Size([2, 2]), 0.0)
    """
    shape, device = sequences.mask_BT.shape, sequences.ids_BS.device
    logp_BT, entropy_BT = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    every_B, shared = torch.arange(shape[0], device=device), shares_prompts(model)
    for index_B in micro_batches(sequences, every_B, micro_batch, micro_tokens, shared=shared):
        part = token_scores(model, sequences.rows(index_B), temperature)
        width = part.logp_BT.shape[1]
        logp_BT[index_B, :width], entropy_BT[index_B, :width] = (each.to(device) for each in part)
    return TokenScores(logp_BT, entropy_BT)
