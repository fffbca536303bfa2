"""How far two policies are apart on responses that one of them sampled: divergences and effective sample size.

All follow from the difference ``d = log target - log source`` of log-probabilities, of tokens or of whole responses,
where the source sampled. They are kept as sums, so that steps, prompts and resamples of prompts add up.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MOST_DIFFERENCE: Final = 50.0
"""Differences of whole responses count up to this many nats, or their ratios would overflow."""
RESPONSE: Final = ("responses", "difference", "square", "k3", "chi_square", "ratio", "ratio_square")
TOKEN: Final = ("counted", "token_k3", "token_chi_square")
SUMS: Final = (*RESPONSE, "length", "length_difference", *TOKEN)
"""What is summed: of responses (or of their beginnings); tokens and the sum of their differences; of tokens."""
MEASURES: Final = ("k1", "k3", "chi_square", "response_k3", "response_chi_square", "ess", "spread")
"""What `measures` gives."""


def response_terms(difference: FloatArray) -> FloatArray:
    """Terms of whole responses, or of their beginnings.

    With ``w = exp(d)``: 1, d, d², ``w - 1 - d`` (whose mean estimates KL(source ‖ target), without bias and never below
    0), ``(w - 1)²`` (the chi-square divergence of target from source), w and w².

    Parameters
    ----------
    difference
        log target - log source, sums over tokens, shape (n,), nats; NaN is left out.

    Returns
    -------
    numpy.ndarray
        Shape (n, 7), as `RESPONSE` names them; 0 in rows that are left out.

    References
    ----------
    J. Schulman, Approximating KL divergence, 2020, for k1 = -d and k3.

    Examples
    --------
    >>> response_terms(np.log([2.0])).round(3)
    array([[1.   , 0.693, 0.48 , 0.307, 1.   , 2.   , 4.   ]])
    """
    known = ~np.isnan(difference)
    d = np.clip(np.where(known, difference, 0.0), -MOST_DIFFERENCE, MOST_DIFFERENCE)
    above = np.expm1(d)  # ratio - 1, exact near equality
    terms = np.stack([np.ones_like(d), d, d**2, above - d, above**2, np.exp(d), np.exp(2 * d)], axis=1)
    return np.where(known[:, None], terms, 0.0)


def token_terms(difference: FloatArray) -> FloatArray:
    """Terms of single tokens: 1, ``exp(d) - 1 - d`` and ``(exp(d) - 1)²``.

    Parameters
    ----------
    difference
        log target - log source of each token, shape (n,), nats; NaN is left out.

    Returns
    -------
    numpy.ndarray
        Shape (n, 3), as `TOKEN` names them; 0 in rows that are left out.

    Examples
    --------
    >>> token_terms(np.log([2.0, np.nan])).round(3)
    array([[1.   , 0.307, 1.   ],
           [0.   , 0.   , 0.   ]])
    """
    return response_terms(difference)[:, [RESPONSE.index(name) for name in ("responses", "k3", "chi_square")]]


def measures(sums: FloatArray) -> dict[str, FloatArray]:
    """Measures of distance from sums of terms.

    Parameters
    ----------
    sums
        Shape (..., 12), as `SUMS` names them.

    Returns
    -------
    dict
        Arrays of shape (...). ``k1`` and ``k3``: estimates of KL(source ‖ target), mean over tokens; ``chi_square``,
        mean over tokens; ``response_k3`` and ``response_chi_square``, means over responses; ``ess``, Kish's effective
        size of the responses weighted by their ratios, as a share of their number; ``spread``, root mean square of the
        responses' differences (nats). NaN where nothing was summed.

    References
    ----------
    A. Kong, A note on importance sampling using standardized weights, Technical Report 348, University of Chicago,
    1992, for the effective sample size, which is ``1 / (1 + chi-square)`` of the normalised weights.

    Examples
    --------
    >>> responses = response_terms(np.log([2.0, 0.5])).sum(axis=0)
    >>> found = measures(np.concatenate([responses, np.zeros(5)]))
    >>> {name: round(float(value), 3) for name, value in found.items() if not np.isnan(value)}
    {'response_k3': 0.25, 'response_chi_square': 0.625, 'ess': 0.735, 'spread': 0.693}
    """
    at = dict(zip(SUMS, np.moveaxis(sums, -1, 0), strict=True))

    def over(above: FloatArray, below: FloatArray) -> FloatArray:
        nothing: FloatArray = np.full(np.shape(below), np.nan)
        return np.divide(above, below, out=nothing, where=below > 0)

    return {
        "k1": over(0.0 - at["length_difference"], at["length"]),
        "k3": over(at["token_k3"], at["counted"]),
        "chi_square": over(at["token_chi_square"], at["counted"]),
        "response_k3": over(at["k3"], at["responses"]),
        "response_chi_square": over(at["chi_square"], at["responses"]),
        "ess": over(at["ratio"] ** 2, at["responses"] * at["ratio_square"]),
        "spread": np.sqrt(over(at["square"], at["responses"])),
    }


def effective_share(difference: FloatArray) -> float:
    """Kish's effective size of responses weighted by ``exp(difference)``, as a share of their number.

    Parameters
    ----------
    difference
        log target - log source of each response, shape (n,), nats; NaN is left out.

    Returns
    -------
    float
        From 1 / n, where one response has all the weight, to 1, where all weights are equal; NaN of none.

    Examples
    --------
    >>> effective_share(np.log([1.0, 1.0, 2.0])), effective_share(np.array([800.0, -800.0]))
    (0.8888888888888888, 0.5)
    """
    difference = difference[~np.isnan(difference)]
    if not len(difference):
        return float("nan")
    weights = np.exp(difference - difference.max())  # only ratios of weights count: none overflows
    return float(weights.sum() ** 2 / (weights @ weights) / len(weights))


def beginnings(difference: FloatArray, row: NDArray[np.int64]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Sum the tokens of each response up to each position.

    Parameters
    ----------
    difference
        Of each token, responses end to end, shape (tokens,).
    row
        Response of each token, rising, shape (tokens,).

    Returns
    -------
    sums : numpy.ndarray
        Sum over the token and those before it in its response, shape (tokens,).
    position : numpy.ndarray
        Number of the token in its response, from 1, shape (tokens,).

    Examples
    --------
    >>> beginnings(np.array([1.0, 2.0, 5.0]), np.array([0, 0, 3]))
    (array([1., 3., 5.]), array([1, 2, 1]))
    """
    first = np.flatnonzero(np.diff(row, prepend=-1))
    lengths = np.diff(first, append=len(row))
    total = np.cumsum(difference)
    before = np.repeat(total[first] - difference[first], lengths)
    return total - before, np.arange(1, len(row) + 1) - np.repeat(first, lengths)


def position_bin(position: NDArray[np.int64]) -> NDArray[np.int64]:
    """First position of the bin that each position is in: two bins for each doubling, 1, 2, 3, 4, 6, 8, 11, 16, 23, ….

    Parameters
    ----------
    position
        From 1, any shape.

    Returns
    -------
    numpy.ndarray
        Same shape.

    Examples
    --------
    >>> position_bin(np.array([1, 2, 3, 5, 7, 8, 12, 1000]))
    array([  1,   2,   3,   4,   6,   8,  11, 724])
    """
    edges = np.unique(np.round(2.0 ** (np.arange(1, 81) / 2)).astype(np.int64))
    edges = np.concatenate([[1], edges])
    return edges[np.searchsorted(edges, position, side="right") - 1]


def position_terms(difference: FloatArray, row: NDArray[np.int64]) -> tuple[NDArray[np.int64], FloatArray]:
    """Terms of tokens and of the beginnings of their responses, by bin of positions.

    Parameters
    ----------
    difference, row
        As for `beginnings`.

    Returns
    -------
    bins : numpy.ndarray
        Bin of each token, shape (tokens,), see `position_bin`.
    terms : numpy.ndarray
        Shape (tokens, 12), as `SUMS` names them. Those of responses are of the beginning up to and including the bin's
        first token, and stand in its row; other rows have 0 there.

    Examples
    --------
    >>> bins, terms = position_terms(np.log([2.0, 1.0, 1.0, 1.0, 1.0]), np.zeros(5, np.int64))
    >>> bins, terms[:, SUMS.index("ratio")]
    (array([1, 2, 3, 4, 4]), array([2., 2., 2., 2., 0.]))
    """
    sums, position = beginnings(difference, row)
    bins = position_bin(position)
    starts = response_terms(np.where(position == bins, sums, np.nan))
    lengths = np.stack([np.ones_like(difference), difference], axis=1)
    return bins, np.concatenate([starts, lengths, token_terms(difference)], axis=1)


def summed(terms: FloatArray, index: NDArray[np.int64], n: int) -> FloatArray:
    """Add up the rows that have the same index.

    Parameters
    ----------
    terms
        Shape (rows, columns).
    index
        From 0, shape (rows,).
    n
        Number of sums.

    Returns
    -------
    numpy.ndarray
        Shape (n, columns).

    Examples
    --------
    >>> summed(np.array([[1.0], [2.0], [4.0]]), np.array([0, 2, 0]), 3).ravel()
    array([5., 0., 2.])
    """
    return np.stack([np.bincount(index, column, n) for column in terms.T], axis=1)


def growth_exponent(position: FloatArray, spread: FloatArray) -> FloatArray:
    """Exponent g of ``spread ~ position^g``: least squares on logarithms.

    Parameters
    ----------
    position
        Positions, at least 1, shape (bins,).
    spread
        Root mean square difference of the beginnings up to there, shape (..., bins); 0 and NaN are left out.

    Returns
    -------
    numpy.ndarray
        Shape (...). 1/2 when the errors of tokens are independent, 1 when they are systematic, 0 when beginnings do not
        drift apart; NaN where fewer than 4 positions are known.

    Examples
    --------
    >>> position = np.array([1.0, 2.0, 4.0, 8.0])
    >>> growth_exponent(position, np.stack([0.1 * np.sqrt(position), 0.1 * position])).round(3)
    array([0.5, 1. ])
    """
    known = np.isfinite(spread) & (spread > 0)
    n = known.sum(axis=-1, keepdims=True)
    x, y = np.broadcast_to(np.log(position), spread.shape), np.log(np.where(known, spread, 1.0))
    dx = np.where(known, x - np.where(known, x, 0.0).sum(axis=-1, keepdims=True) / np.maximum(n, 1), 0.0)
    power = (dx**2).sum(axis=-1)
    nothing: FloatArray = np.full(power.shape, np.nan)
    exponent: FloatArray = np.divide((dx * y).sum(axis=-1), power, out=nothing, where=(n[..., 0] >= 4) & (power > 0))
    return exponent
