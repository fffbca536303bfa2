"""Groups of verdicts by how many rollouts are correct."""

import numpy as np

GROUP = 8


def group(correct: int, size: int = GROUP) -> np.ndarray:
    """One group, its correct rollouts first, shape (1, size)."""
    return np.array([[1.0] * correct + [0.0] * (size - correct)])


def all_groups(size: int = GROUP) -> np.ndarray:
    """A group of every number of correct rollouts, shape (size + 1, size)."""
    return np.vstack([group(correct, size) for correct in range(size + 1)])
