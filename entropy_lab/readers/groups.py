"""Which rollouts belong together: group and sample numbers from ids, from equal prompts, or from the order of rows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

_ROUNDING: Final = 1e-3
"""Advantages smaller than this count as zero: frameworks print and store them rounded."""


def group_numbers(labels: Iterable[Hashable]) -> IntArray:
    """Give groups numbers by their labels, from 0 in the order of appearance; the rows of a group may lie apart.

    Parameters
    ----------
    labels
        One per rollout: an id, or the prompt itself.

    Returns
    -------
    ndarray of int64, shape (rollouts,)

    Examples
    --------
    >>> group_numbers(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


def sample_numbers(groups: Sequence[int] | IntArray) -> IntArray:
    """Give numbers to the rollouts of each group from 0, in the order of the rows.

    Examples
    --------
    >>> sample_numbers([0, 1, 0]).tolist()
    [0, 0, 1]
    """
    seen: dict[int, int] = {}
    samples = np.empty(len(groups), dtype=np.int64)
    for row, group in enumerate(groups):
        samples[row] = seen.get(int(group), 0)
        seen[int(group)] = int(samples[row]) + 1
    return samples


def common_size(runs_of_prompts: Iterable[Sequence[Hashable]]) -> int:
    """Infer the group size from rows that stand group by group: the greatest common divisor of runs of equal prompts.

    Two neighbouring groups of one prompt make a run of twice the size, which the divisor forgives.

    Parameters
    ----------
    runs_of_prompts
        The prompts of some files, each in the order of its rows.

    Returns
    -------
    int
        0 when there are no rows.

    Examples
    --------
    >>> common_size([["a", "a", "b", "b", "b", "b"]])
    2
    """
    lengths = [sum(1 for _ in run) for prompts in runs_of_prompts for _, run in groupby(prompts)]
    return math.gcd(*lengths) if lengths else 0


def ordered_groups(prompts: Sequence[Hashable], size: int = 0) -> IntArray:
    """Give numbers to the groups of one step's rows, which mostly stand group by group.

    Groups are ``size`` rows in order, where every such block has one prompt; so a prompt drawn twice makes two groups.
    Else equal prompts make a group.

    Parameters
    ----------
    prompts
        One a rollout, in the order of the rows.
    size
        Group size that settings state; 0 infers it from the step's runs of equal prompts.

    Returns
    -------
    ndarray of int64, shape (rollouts,)

    Examples
    --------
    >>> ordered_groups(["a", "a", "b", "b", "b", "b"]).tolist(), ordered_groups(["a", "b", "a"]).tolist()
    ([0, 0, 1, 1, 2, 2], [0, 1, 0])
    """
    n = len(prompts)
    wanted = size or _shortest_run(prompts)
    if wanted > (0 if size else 1) and n % wanted == 0:
        blocks = [prompts[start : start + wanted] for start in range(0, n, wanted)]
        if all(len(set(block)) == 1 for block in blocks):
            return np.arange(n) // wanted
    return group_numbers(prompts)


def _shortest_run(prompts: Sequence[Hashable]) -> int:
    """Give the shortest run of equal prompts where all others are multiples of it, else 0."""
    shortest = min((sum(1 for _ in run) for _, run in groupby(prompts)), default=0)
    return shortest if common_size([prompts]) == shortest else 0


def centred_size(advantages: Sequence[Sequence[float]], size: int) -> int:
    """Divide a group size further while smaller blocks of advantages are centred, for runs of one prompt only.

    Where every row has the same prompt, prompts say nothing; but group-centred advantages sum to zero over each true
    group. A size counts when it centres all blocks and at least eight of them have a signal, so that it is no chance.

    Parameters
    ----------
    advantages
        Of some files, each in the order of its rows.
    size
        Group size that equal prompts suggest; it divides every file's number of rows.

    Returns
    -------
    int
        The smallest such divisor of ``size`` above 1, or ``size``.

    Examples
    --------
    >>> a = [[1.0, -0.5, -0.5] * 8]
    >>> centred_size(a, 24), centred_size([[1.0, 1.0, -1.0, -1.0] * 4], 16)
    (3, 16)
    """
    # A block that is logged again is no new evidence.
    values = [np.asarray(part, dtype=np.float64) for part in dict.fromkeys(map(tuple, advantages))]
    sound = [part for part in values if len(part) % size == 0 and np.isfinite(part).all()]
    joined = np.concatenate(sound) if sound else np.zeros(0)
    for smaller in range(2, size):
        if size % smaller == 0:
            blocks = joined.reshape(-1, smaller)
            n_signals = int((np.abs(blocks).max(axis=1, initial=0.0) > _ROUNDING).sum())
            if n_signals >= 8 and np.abs(blocks.mean(axis=1)).max() < _ROUNDING:
                return smaller
    return size
