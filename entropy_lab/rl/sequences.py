"""Prompts with their responses as rows of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from entropy_lab.errors import ParameterError
from entropy_lab.tasks.task import PAD


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
    prompt_B
        Number of each row's prompt: rows with equal numbers have equal prompts.

    Examples
    --------
    >>> sequences = Sequences.join([[5, 6], [7], [5, 6]], [[1], [8, 1], [8]])
    >>> sequences.ids_BS.tolist(), sequences.prompt_B.tolist()
    ([[5, 6, 1], [7, 8, 1], [5, 6, 8]], [0, 1, 0])
    """

    ids_BS: torch.Tensor
    n_prompt_B: torch.Tensor
    n_tokens_B: torch.Tensor
    prompt_B: torch.Tensor

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
        width, numbers = max(map(len, rows)), dict[tuple[int, ...], int]()
        return cls(
            torch.tensor([row + [PAD] * (width - len(row)) for row in rows]),
            torch.tensor([len(prompt) for prompt in prompts]),
            torch.tensor([len(response) for response in responses]),
            torch.tensor([numbers.setdefault(tuple(prompt), len(numbers)) for prompt in prompts]),
        )

    @property
    def mask_BT(self) -> torch.Tensor:
        """True at response tokens, False at padding; T is the longest response."""
        width = int(self.n_tokens_B.max())
        return torch.arange(width, device=self.n_tokens_B.device) < self.n_tokens_B[:, None]

    @property
    def response_ids_N(self) -> torch.Tensor:
        """Response tokens row by row, in the order of `mask_BT`."""
        position_S = torch.arange(self.ids_BS.shape[1], device=self.ids_BS.device)
        first_B = self.n_prompt_B[:, None]
        return self.ids_BS[(position_S >= first_B) & (position_S < first_B + self.n_tokens_B[:, None])]

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
        width = int((n_prompt_B + n_tokens_B).max())
        return Sequences(self.ids_BS[index_B, :width], n_prompt_B, n_tokens_B, self.prompt_B[index_B])

    def to(self, device: torch.device) -> Sequences:
        """Give the same rows on a device."""
        columns = (self.ids_BS, self.n_prompt_B, self.n_tokens_B, self.prompt_B)
        return Sequences(*(column.to(device) for column in columns))
