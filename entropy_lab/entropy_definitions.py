"""What a number called entropy is: the reductions that trainers log, and the names they log them under."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError

FloatArray = NDArray[np.float64]

REDUCTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "token-mean": "mean over response tokens",
        "seq-mean-token-mean": "mean over responses of their token means",
        "seq-mean-token-sum": "mean over responses of their token sums",
        "seq-mean-token-sum-norm": "that mean / the length limit of responses",
        "padded-mean": "that mean / the longest response of the step: padding counted as 0",
        "token-sum": "sum over all response tokens of the step",
    }
)
"""Reductions by the names of verl's ``loss_agg_mode``, and one for means that run over padding."""


@dataclass(frozen=True)
class Lengths:
    """Sizes of the batches of some steps.

    Parameters
    ----------
    n_rollouts, n_tokens, longest
        Responses, response tokens, and tokens of the longest response, shape (steps,).
    limit
        Length limit of responses in tokens; None when unknown.
    """

    n_rollouts: FloatArray
    n_tokens: FloatArray
    longest: FloatArray
    limit: float | None = None


def per_token(how: str, lengths: Lengths) -> FloatArray:
    """Give the factor that turns a reduction into the mean over tokens, as far as lengths decide it.

    Parameters
    ----------
    how
        A key of `REDUCTIONS`.
    lengths
        Sizes of the batches.

    Returns
    -------
    numpy.ndarray
        Shape (steps,); NaN for ``seq-mean-token-mean``, whose factor depends on the entropies, and for a norm by an
        unknown limit.

    Raises
    ------
    ParameterError
        There is no such reduction.

    Examples
    --------
    >>> lengths = Lengths(np.array([64.0]), np.array([454.0]), np.array([8.0]), 8)
    >>> {how: per_token(how, lengths).round(4).item() for how in ("seq-mean-token-sum", "seq-mean-token-sum-norm")}
    {'seq-mean-token-sum': 0.141, 'seq-mean-token-sum-norm': 1.1278}
    """
    mean_length = lengths.n_tokens / lengths.n_rollouts
    limit = np.nan if lengths.limit is None else lengths.limit
    factors = {
        "token-mean": np.ones(len(mean_length)),
        "seq-mean-token-mean": np.full(len(mean_length), np.nan),
        "seq-mean-token-sum": 1 / mean_length,
        "seq-mean-token-sum-norm": limit / mean_length,
        "padded-mean": lengths.longest / mean_length,
        "token-sum": 1 / lengths.n_tokens,
    }
    if how not in factors:
        raise ParameterError("reduction", f"is {how!r}", f"one of {', '.join(REDUCTIONS)}")
    return factors[how]


def reduced(how: str, total: FloatArray, row_mean: FloatArray, lengths: Lengths) -> FloatArray:
    """Reduce entropies (or minus log-probabilities) of response tokens to one number a step.

    Parameters
    ----------
    how
        A key of `REDUCTIONS`.
    total
        Sum over all response tokens of the step, shape (steps,).
    row_mean
        Mean over responses of their token means, shape (steps,).
    lengths
        Sizes of the batches.

    Returns
    -------
    numpy.ndarray
        Shape (steps,); NaN for a norm by an unknown limit.

    Raises
    ------
    ParameterError
        There is no such reduction.

    Examples
    --------
    Two responses, of one token with 1 nat and of three with 2 nats each:

    >>> sizes = Lengths(np.array([2.0]), np.array([4.0]), np.array([3.0]), 5)
    >>> {how: reduced(how, np.array([7.0]), np.array([1.5]), sizes).round(3).item() for how in REDUCTIONS}
    {'token-mean': 1.75, 'seq-mean-token-mean': 1.5, 'seq-mean-token-sum': 3.5, 'seq-mean-token-sum-norm': 0.7, \
'padded-mean': 1.167, 'token-sum': 7.0}
    """
    if how == "seq-mean-token-mean":
        return row_mean
    return total / lengths.n_tokens / per_token(how, lengths)


_NO_ENTROPY: Final = (
    *("coef", "coeff", "coefficient", "target", "smoothed", "bonus", "weight", "ratio", "delta", "advantage"),
    *("threshold", "quantile", "clip", "cross", "relative", "std", "min", "max", "var", "median", "count", "time"),
    *("eval", "val", "validation", "test", "before", "timing", "grad", "lr"),
)


def is_entropy(name: str) -> bool:
    """Tell whether a logged name is that of a policy entropy over the step's training rollouts.

    Parameters
    ----------
    name
        As a framework logs it.

    Returns
    -------
    bool
        False for coefficients, targets, spreads, extremes and validation.

    Examples
    --------
    >>> [is_entropy(name) for name in ("actor/entropy", "train/approx_entropy", "policy/entropy_avg", "entropy_loss")]
    [True, True, True, True]
    >>> [is_entropy(name) for name in ("entropy_coef", "eval/entropy", "entropy/all/std", "cross_entropy")]
    [False, False, False, False]
    """
    words = re.split(r"[^a-z0-9]+", name.lower())
    return "entropy" in words and not set(words) & set(_NO_ENTROPY)


class Declaration(NamedTuple):
    """What a framework's name stands for.

    Parameters
    ----------
    how
        A key of `REDUCTIONS`, or ``"loss_agg_mode"`` where a setting of that name decides.
    monte_carlo
        Whether it is a mean of minus log-probabilities instead of entropies.
    formats
        Readers whose runs the name means this in; empty for any.
    """

    how: str
    monte_carlo: bool = False
    formats: tuple[str, ...] = ()


_DECLARED: Final[Mapping[str, Declaration]] = MappingProxyType(
    {
        r"(train/)?entropy": Declaration("token-mean", formats=("", "trl")),
        r"actor/entropy(_loss)?": Declaration("loss_agg_mode"),
        r"(train/)?approx_entropy": Declaration("token-mean", monte_carlo=True),
        r"optim/entropy": Declaration("token-mean", monte_carlo=True),
        r"entropy/all/mean": Declaration("token-mean"),
        r"(ppo|grpo)_actor/update/entropy(/avg)?": Declaration("token-mean"),
        r"critic/entropy/mean": Declaration("token-mean", formats=("roll",)),
        r"policy/(policy_entropy|entropy_avg)": Declaration("token-mean"),
    }
)
"""Names of logged entropies, as regular expressions: ours, TRL, verl, NeMo-RL, Tinker, prime-rl, AReaL, ROLL, SkyRL
and open-instruct."""


def declared(name: str, format: str = "") -> Declaration | None:
    """Tell what a name stands for in the framework that logs it.

    Parameters
    ----------
    name
        The framework's own name.
    format
        Name of the reader that the run was imported with; empty for a run of ours.

    Returns
    -------
    Declaration or None
        None where the name says nothing by itself.

    Examples
    --------
    >>> declared("actor/entropy", "verl").how, declared("entropy").how, declared("entropy", "csv")
    ('loss_agg_mode', 'token-mean', None)
    """
    found = next((one for pattern, one in _DECLARED.items() if re.fullmatch(pattern, name)), None)
    return found if found and (not found.formats or format in found.formats) else None
