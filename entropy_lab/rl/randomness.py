"""All the randomness of a run, by seed, purpose and step.

Nothing is drawn from a generator that lives from one step to the next: data order and samples of a step are functions
of the settings. Validating more often therefore changes no training, and a checkpoint has no generator to keep.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a generator is for: the second number of its seed."""

    ORDER = 1
    SAMPLING = 2
    VALIDATION = 3


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
