"""Rows cut into the batches of single passes, so that as little as possible goes through the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch

from entropy_lab.rl.sequences import Sequences

_WORTH: Final = 0.9
"""Share of the tokens of one pass below which two, prompts first, take less time."""


@dataclass
class Extent:
    """How many tokens a pass over some rows has, padding included.

    Parameters
    ----------
    shared
        Whether each different prompt may be read once, in a pass of its own.

    Examples
    --------
    Four responses of two tokens to one prompt of six; the last token of a response predicts nothing:

    >>> extent = Extent(shared=True)
    >>> for _ in range(4):
    ...     extent.add(Row(n_prompt=6, n_tokens=2, prompt=0))
    >>> extent.whole, extent.apart, extent.tokens
    (32, 10, 10)
    """

    shared: bool
    _rows: int = 0
    _longest: int = 0
    _longest_prompt: int = 0
    _longest_response: int = 0
    _prompts: set[int] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Take a row in."""
        self._rows += 1
        self._longest = max(self._longest, row.n_prompt + row.n_tokens)
        self._longest_prompt = max(self._longest_prompt, row.n_prompt)
        self._longest_response = max(self._longest_response, row.n_tokens)
        self._prompts.add(row.prompt)

    @property
    def whole(self) -> int:
        """Tokens of one pass over prompts and responses."""
        return self._rows * self._longest

    @property
    def apart(self) -> int:
        """Tokens of a pass over the different prompts, and of another over the responses."""
        return len(self._prompts) * self._longest_prompt + self._rows * max(0, self._longest_response - 1)

    @property
    def tokens(self) -> int:
        """Tokens of the way that is taken."""
        return self.apart if self.shared and self.apart < _WORTH * self.whole else self.whole


class Row(NamedTuple):
    """Lengths of a prompt and a response, and the prompt's number."""

    n_prompt: int
    n_tokens: int
    prompt: int


def rows_of(sequences: Sequences) -> list[Row]:
    """Give the extent of each row.

    Parameters
    ----------
    sequences
        B rows.
    """
    columns = (sequences.n_prompt_B, sequences.n_tokens_B, sequences.prompt_B)
    return [Row(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def prompts_apart(sequences: Sequences) -> bool:
    """Say whether reading each different prompt once, in a pass of its own, saves a tenth of the tokens.

    Parameters
    ----------
    sequences
        Rows of one pass.

    Examples
    --------
    >>> prompts_apart(Sequences.join([[5, 6, 7]] * 3, [[8, 1]] * 3))
    True
    >>> prompts_apart(Sequences.join([[5, 6, 7], [6, 5, 7]], [[8] * 12] * 2))
    False
    """
    extent = _extent(rows_of(sequences), shared=True)
    return extent.tokens < extent.whole


def micro_batches(
    sequences: Sequences, index_B: torch.Tensor, size: int, tokens: int = 0, *, shared: bool = False
) -> list[torch.Tensor]:
    """Cut rows into batches, in the order that leaves the fewest tokens, padding included, to all passes together.

    Parameters
    ----------
    sequences
        The rows.
    index_B
        Row numbers.
    size
        Most rows of a batch.
    tokens
        Most tokens of a batch, prompts and padding included; a longer row is a batch of its own. 0 for no limit.
    shared
        Whether the passes may read each different prompt once, see `hidden_states.shares_prompts`.

    Returns
    -------
    list of Tensor
        Row numbers, at most `size`; nothing without rows. By length: from the shortest rows to the longest.

    Examples
    --------
    >>> sequences = Sequences.join([[5], [5], [5]], [[6, 6, 1], [1], [6, 1]])
    >>> [batch.tolist() for batch in micro_batches(sequences, torch.arange(3), 2)]
    [[1, 2], [0]]
    >>> [batch.tolist() for batch in micro_batches(sequences, torch.arange(3), 64, tokens=6)]
    [[1, 2], [0]]
    """
    rows, index = rows_of(sequences), index_B.tolist()
    orders = [sorted(index, key=lambda i: rows[i].n_prompt + rows[i].n_tokens)]
    if shared:
        longest = dict[int, int]()
        for i in index:
            longest[rows[i].prompt] = max(longest.get(rows[i].prompt, 0), rows[i].n_tokens)
        orders.append(sorted(index, key=lambda i: (rows[i].n_tokens, rows[i].n_prompt)))
        orders.append(sorted(index, key=lambda i: (longest[rows[i].prompt], rows[i].prompt, rows[i].n_tokens)))
    different = [order for k, order in enumerate(orders) if order not in orders[:k]]
    cuts = [_cut(order, rows, size, tokens, shared) for order in different]
    best = min(cuts, key=lambda cut: sum(_extent((rows[i] for i in batch), shared).tokens for batch in cut))
    return [torch.tensor(batch, device=index_B.device) for batch in best]


def _cut(order: list[int], rows: Sequence[Row], size: int, tokens: int, shared: bool) -> list[list[int]]:
    if not tokens:
        return [order[start : start + size] for start in range(0, len(order), size)]
    batches, extent = list[list[int]](), Extent(shared)
    for i in order:
        extent.add(rows[i])
        if not batches or len(batches[-1]) == size or extent.tokens > tokens:
            batches.append([])
            extent = _extent([rows[i]], shared)
        batches[-1].append(i)
    return batches


def _extent(rows: Iterable[Row], shared: bool) -> Extent:
    extent = Extent(shared)
    for row in rows:
        extent.add(row)
    return extent
