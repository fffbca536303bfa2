"""Accuracy over several answers: Avg@k and the unbiased pass@k."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]


def pass_at_k(n_correct: FloatArray, n: FloatArray, k: int) -> FloatArray:
    """Probability that at least one of k answers, drawn without replacement from n, is correct.

    ``1 - C(n - c, k) / C(n, k)``, as the product ``1 - prod_{i = n-c+1..n} (1 - k / i)``, which cannot overflow.

    Parameters
    ----------
    n_correct, n
        Correct answers and answers of each problem, shape (problems,).
    k
        Answers drawn, from 1 to the smallest ``n``.

    Returns
    -------
    numpy.ndarray
        Shape (problems,), in [0, 1].

    Raises
    ------
    ParameterError
        ``k`` is below 1 or above the smallest ``n``.

    References
    ----------
    Chen et al. (2021), arXiv 2107.03374, Eq. 1.

    Examples
    --------
    >>> pass_at_k(np.array([0.0, 1.0, 4.0]), np.array([4.0, 4.0, 4.0]), 2)
    array([0. , 0.5, 1. ])
    """
    if len(n) and not 1 <= k <= n.min():
        raise ParameterError("k", f"is {k}", f"from 1 to {int(n.min())}, the fewest answers of a problem")
    return np.array(
        [
            1.0 - np.prod(1.0 - k / np.arange(size - right + 1, size + 1))
            for right, size in zip(n_correct, n, strict=True)
        ]
    )
