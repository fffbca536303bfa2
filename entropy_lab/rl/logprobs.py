"""Log-probability and exact entropy of every response token, from forward passes over prompt and response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from entropy_lab.errors import ParameterError
from entropy_lab.rl.linear_logp import linear_logp_entropy
from entropy_lab.rl.precision import autocast, compute_dtype, device_of
from entropy_lab.tasks.task import PAD

_FEW_LOGITS: Final = 2**20
"""Up to this many (4 MiB) they are made at once: beyond, blocks take less time too, and a tenth of the memory."""


@dataclass(frozen=True)
class Sequences:
    """B prompts with their responses, side by side and padded on the right.

    Parameters
    ----------
    ids_BS
        Prompt tokens, response tokens, padding; int64.
    n_prompt_B
        Prompt tokens of each row, at least 1.
    n_tokens_B
        Response tokens of each row.

    Examples
    --------
    >>> sequences = Sequences.join([[5, 6], [7]], [[1], [8, 1]])
    >>> sequences.ids_BS.tolist()
    [[5, 6, 1], [7, 8, 1]]
    """

    ids_BS: torch.Tensor
    n_prompt_B: torch.Tensor
    n_tokens_B: torch.Tensor

    @classmethod
    def join(cls, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Sequences:
        """Put each prompt's tokens before its response's.

        Parameters
        ----------
        prompts, responses
            Token ids of B rows; prompts have one or more.

        Returns
        -------
        Sequences
            B rows.

        Raises
        ------
        ParameterError
            When there are not as many prompts as responses, there is none, or a prompt is empty.
        """
        if len(prompts) != len(responses) or not prompts or not all(prompts):
            raise ParameterError(
                "prompts", f"has {len(prompts)} rows for {len(responses)} responses", "as many, none of them empty"
            )
        rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
        width = max(map(len, rows))
        return cls(
            torch.tensor([row + [PAD] * (width - len(row)) for row in rows]),
            torch.tensor([len(prompt) for prompt in prompts]),
            torch.tensor([len(response) for response in responses]),
        )

    @property
    def mask_BT(self) -> torch.Tensor:
        """True at response tokens, False at padding; T is the longest response."""
        width = int(self.n_tokens_B.max())
        return torch.arange(width, device=self.n_tokens_B.device) < self.n_tokens_B[:, None]

    def rows(self, index_B: torch.Tensor) -> Sequences:
        """Take some of the rows, without the columns that only longer rows need.

        Parameters
        ----------
        index_B
            Row numbers.

        Returns
        -------
        Sequences
            One row for each number.
        """
        n_prompt_B, n_tokens_B = self.n_prompt_B[index_B], self.n_tokens_B[index_B]
        return Sequences(self.ids_BS[index_B, : int((n_prompt_B + n_tokens_B).max())], n_prompt_B, n_tokens_B)

    def to(self, device: torch.device) -> Sequences:
        """Give the same rows on a device."""
        return Sequences(self.ids_BS.to(device), self.n_prompt_B.to(device), self.n_tokens_B.to(device))

    def micro_batches(self, index_B: torch.Tensor, size: int, tokens: int = 0) -> Iterator[torch.Tensor]:
        """Cut rows into batches of like length, so that little of a batch is padding.

        Parameters
        ----------
        index_B
            Row numbers.
        size
            Most rows of a batch.
        tokens
            Most tokens of a batch, prompts and padding included; a longer row is a batch of its own. 0 for no limit.

        Yields
        ------
        Tensor
            Row numbers, at most `size`, from the shortest rows to the longest; nothing without rows.

        Examples
        --------
        >>> sequences = Sequences.join([[5], [5], [5]], [[6, 6, 1], [1], [6, 1]])
        >>> [batch.tolist() for batch in sequences.micro_batches(torch.arange(3), 2)]
        [[1, 2], [0]]
        >>> [batch.tolist() for batch in sequences.micro_batches(torch.arange(3), 64, tokens=6)]
        [[1, 2], [0]]
        """
        length_B = (self.n_prompt_B + self.n_tokens_B)[index_B]
        sorted_B = index_B[length_B.argsort(stable=True)]
        lengths, start = length_B.sort().values.tolist(), 0
        while start < len(lengths):
            end = min(start + size, len(lengths))
            while tokens and end > start + 1 and (end - start) * lengths[end - 1] > tokens:
                end -= 1
            yield sorted_B[start:end]
            start = end


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
    ids_BS, n_prompt_B, n_tokens_B = sequences.ids_BS, sequences.n_prompt_B, sequences.n_tokens_B
    with autocast(model):
        # Padding is on the right, where no real token looks: causal attention needs no mask of its own.
        hidden_BSD = causal.base_model(input_ids=ids_BS, use_cache=False).last_hidden_state
    # The token at s + 1 is predicted at s: from the prompt's last token to the response's last but one.
    position_S = torch.arange(ids_BS.shape[1] - 1, device=ids_BS.device)
    first_B, end_B = n_prompt_B[:, None] - 1, n_prompt_B[:, None] - 1 + n_tokens_B[:, None]
    predicts_BS = (position_S >= first_B) & (position_S < end_B)
    # N = response tokens of all rows: only they go through the vocabulary.
    hidden_ND, token_N = hidden_BSD[:, :-1][predicts_BS], ids_BS[:, 1:][predicts_BS]
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
    logits_NV = output(hidden_ND.to(output.weight.dtype)).float() / temperature
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
        Most rows and most tokens of one forward pass, see `Sequences.micro_batches`.

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
    for index_B in sequences.micro_batches(torch.arange(shape[0], device=device), micro_batch, micro_tokens):
        part = token_scores(model, sequences.rows(index_B), temperature)
        width = part.logp_BT.shape[1]
        logp_BT[index_B, :width], entropy_BT[index_B, :width] = (each.to(device) for each in part)
    return TokenScores(logp_BT, entropy_BT)
