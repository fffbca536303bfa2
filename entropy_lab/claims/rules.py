"""The rules of the audit, written down before any number: what a verdict is, and how many questions it answers for.

A part of a claim says that some means over seeds are above 0 (two of them for "about equal"). A claim is true when all
of them are. Two null hypotheses are tested, each at half the level, so that no more than ``ALPHA`` of audits have any
wrong verdict:

- *the claim does not hold*: some mean is <= 0. By the intersection-union principle p is the largest of its parts.
- *nothing is reversed*: no mean is < 0. p is the smallest p against a part times their number (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]

ALPHA: Final = 0.05
"""Probability of any wrong verdict in a family of claims, over both directions."""
MIN_PAIRS: Final = 3
"""Fewest pairs of seeds on which a part is judged."""
SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"


def conjunction(p_for: FloatArray, p_against: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Combine the tests of a claim's parts.

    Parameters
    ----------
    p_for, p_against
        One-sided p of each part in the claimed and in the opposite direction, shape (..., parts); NaN for a part that
        cannot be judged.

    Returns
    -------
    p_for, p_against : numpy.ndarray
        Shape (...), in [0, 1]: the largest of the first, and the smallest of the second times their number, at most 1.
        NaN where any part is NaN.

    References
    ----------
    Berger (1982), "Multiparameter hypothesis testing and acceptance sampling" (intersection-union tests).

    Examples
    --------
    >>> [float(p) for p in conjunction(np.array([0.01, 0.2]), np.array([0.99, 0.8]))]
    [0.2, 1.0]
    """
    return p_for.max(axis=-1), np.minimum(1.0, p_against.shape[-1] * p_against.min(axis=-1))


def holm(p: FloatArray) -> FloatArray:
    """Adjust p-values for their number by Holm's step-down method.

    The i-th smallest of m is multiplied by m - i + 1; a larger one's is never below a smaller one's.

    Parameters
    ----------
    p
        Shape (..., hypotheses); NaN marks a hypothesis that was not tested and does not count.

    Returns
    -------
    numpy.ndarray
        Same shape, in [0, 1]; NaN stays.

    References
    ----------
    Holm (1979), "A simple sequentially rejective multiple test procedure".

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03, np.nan]))
    array([0.03, 0.06, 0.06,  nan])
    """
    order = np.argsort(p, axis=-1)  # NaN last
    tested = (~np.isnan(p)).sum(axis=-1, keepdims=True)
    factors = np.maximum(tested - np.arange(p.shape[-1]), 1)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * factors, axis=-1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=-1)
    return adjusted


def adjusted(p: FloatArray) -> FloatArray:
    """Adjust the p-values of one direction: Holm's, doubled, because the other direction could be wrong as well.

    Parameters
    ----------
    p
        Shape (..., claims x settings); NaN marks what was not tested.

    Returns
    -------
    numpy.ndarray
        Same shape, in [0, 1]; to be held against ``ALPHA``.

    Examples
    --------
    >>> adjusted(np.array([0.01, 0.5]))
    array([0.04, 1.  ])
    """
    return np.minimum(1.0, 2 * holm(p))


def verdict(p_for: float, p_against: float, alpha: float = ALPHA) -> str:
    """Judge a claim in one setting.

    Parameters
    ----------
    p_for, p_against
        Adjusted p-values, see `adjusted`; NaN when the claim could not be judged.
    alpha
        Level.

    Returns
    -------
    str
        ``"supported"`` when ``p_for <= alpha``, ``"contradicted"`` when ``p_against <= alpha``, else
        ``"inconclusive"``. Both cannot be: with one-sided p at or below one half for all parts, none speaks against.

    Raises
    ------
    ParameterError
        ``alpha`` is outside (0, 1).

    Examples
    --------
    >>> verdict(0.01, 1.0), verdict(1.0, 0.05), verdict(0.06, 1.0), verdict(float("nan"), float("nan"))
    ('supported', 'contradicted', 'inconclusive', 'inconclusive')
    """
    if not 0 < alpha < 1:
        raise ParameterError("alpha", f"is {alpha}", "between 0 and 1, both excluded")
    if p_for <= alpha:
        return SUPPORTED
    return CONTRADICTED if p_against <= alpha else INCONCLUSIVE


def overall(verdicts: Sequence[str]) -> str:
    """Judge a claim over settings, as a statement about every one of them.

    Parameters
    ----------
    verdicts
        Those of the settings in which the claim could be judged.

    Returns
    -------
    str
        ``"contradicted"`` if it is in any setting, ``"supported"`` if it is in all of at least one, else
        ``"inconclusive"``.

    Examples
    --------
    >>> overall(["supported", "supported"]), overall(["supported", "inconclusive"]), overall([])
    ('supported', 'inconclusive', 'inconclusive')
    >>> overall(["supported", "contradicted"])
    'contradicted'
    """
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts and set(verdicts) == {SUPPORTED} else INCONCLUSIVE
