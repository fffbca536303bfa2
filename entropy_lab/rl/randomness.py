"""All the randomness of a run, by seed, purpose and step.

Nothing is drawn from a generator that lives from one step to the next: data order and samples of a step are functions
of the settings. Validating more often therefore changes no training, and a checkpoint has no generator to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a generator is for: the second number of its seed."""

    ORDER = 1
    SAMPLING = 2
    VALIDATION = 3
    CLIP_COV = 4
    MINI_BATCHES = 5


def prompt_order(seed: int, epoch: int, n_prompts: int) -> NDArray[np.int64]:
    """Shuffle the training prompts for an epoch.

    Parameters
    ----------
    seed
        Seed of the run.
    epoch
        Pass over the prompts, from 0.
    n_prompts
        Number of training prompts.

    Returns
    -------
    array of int
        Each index from 0 to ``n_prompts - 1`` once.

    Examples
    --------
    >>> sorted(prompt_order(0, epoch=1, n_prompts=4).tolist())
    [0, 1, 2, 3]
    """
    return np.random.default_rng([seed, Purpose.ORDER, epoch]).permutation(n_prompts)


def mini_batches(seed: int, step: int, n_prompts: int, n_parts: int, epochs: int = 1) -> Iterator[torch.Tensor]:
    """Cut an update's prompts into mini-batches: in their order first, shuffled in every further pass.

    Parameters
    ----------
    seed, step
        Of the run and the update.
    n_prompts
        Prompts of the update, a multiple of `n_parts`.
    n_parts
        Mini-batches of a pass.
    epochs
        Passes.

    Yields
    ------
    Tensor
        Numbers of the prompts, from 0.

    Examples
    --------
    >>> [part.tolist() for part in mini_batches(0, 0, n_prompts=4, n_parts=2)]
    [[0, 1], [2, 3]]
    """
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, Purpose.MINI_BATCHES, step, epoch])
        order = rng.permutation(n_prompts) if epoch else np.arange(n_prompts)
        yield from torch.from_numpy(order).chunk(n_parts)


def torch_generator(seed: int, purpose: int, step: int) -> torch.Generator:
    """Make the generator of a step and purpose.

    Parameters
    ----------
    seed
        Seed of the run.
    purpose
        A `Purpose`.
    step
        Index of the update, from 0.

    Returns
    -------
    torch.Generator
        On the CPU, in a state that depends on all three.

    Examples
    --------
    >>> first, again = (torch_generator(0, Purpose.SAMPLING, step=3) for _ in range(2))
    >>> bool(torch.rand(1, generator=first) == torch.rand(1, generator=again))
    True
    """
    state = np.random.SeedSequence([seed, purpose, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
