"""Which definition a logged series of entropies follows, and whether token lists belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

EXACT: Final = 1e-5
"""Largest relative error, median over steps, of the same number computed in another order in float32."""
CLOSE: Final = 0.02
"""The same of a mean over mini-batches, or of a policy between two gradient steps."""
ALIKE: Final = 0.01
"""Relative difference per token up to which it does not matter which of several definitions it is."""
_ROUNDING: Final = 5e-7
_APART: Final = 5.0
"""A definition whose error is so many times that of the best is ruled out."""


@dataclass(frozen=True)
class Inference:
    """Which definitions a logged series follows.

    Parameters
    ----------
    fitting
        Definitions that cannot be told apart by these data, the best first; empty when none fits.
    error
        Relative error of the best, median over steps; NaN without a step.
    worst
        Its largest relative error.
    next_name, next_error
        The best of those ruled out.
    n_steps
        Steps compared.
    """

    fitting: tuple[str, ...]
    error: float
    worst: float
    next_name: str
    next_error: float
    n_steps: int


def infer(logged: FloatArray, candidates: Mapping[str, FloatArray], close: float = CLOSE) -> Inference:
    """Compare a logged series with what each definition gives.

    A definition fits when its relative error, median over steps, is at most ``close`` and at most five times that of
    the best.

    Parameters
    ----------
    logged
        Shape (steps,); NaN is absent.
    candidates
        Definition -> its values, shape (steps,); one that is NaN where the series is not is left out.
    close
        Largest relative error; more than 2 % where the values themselves are noisy estimates.

    Returns
    -------
    Inference
        In the order of the errors; equal ones in that of ``candidates``.

    Examples
    --------
    >>> series = {"token-mean": np.array([2.0, 1.0]), "token-sum": np.array([8.0, 5.0])}
    >>> found = infer(np.array([2.0, 1.0]), series)
    >>> found.fitting, found.error, found.next_name
    (('token-mean',), 0.0, 'token-sum')
    """
    here = np.isfinite(logged)
    errors: dict[str, tuple[float, float]] = {}
    for name, values in candidates.items():
        if here.any() and np.isfinite(values[here]).all():
            scale = np.maximum(np.abs(values[here]), np.finfo(float).tiny)
            apart = np.abs(logged[here] - values[here]) / scale
            errors[name] = float(np.median(apart)), float(apart.max())
    order = sorted(errors, key=lambda name: errors[name][0])
    if not order:
        return Inference((), float("nan"), float("nan"), "", float("nan"), int(here.sum()))
    best, worst = errors[order[0]]
    bound = min(close, _APART * max(best, _ROUNDING))
    fitting = tuple(name for name in order if errors[name][0] <= bound)
    others = [name for name in order if name not in fitting]
    after = others[0] if others else ""
    return Inference(fitting, best, worst, after, errors[after][0] if after else float("nan"), int(here.sum()))


def multiple(logged: FloatArray, values: FloatArray) -> float | None:
    """Give the constant that a series is a multiple of another by; None where there is none.

    Parameters
    ----------
    logged, values
        Shape (steps,); NaN is absent.

    Returns
    -------
    float or None
        None for fewer than three steps, a ratio that is not the same at all steps to 1e-5, or values that hardly vary.

    Examples
    --------
    >>> values = np.array([2.0, 1.5, 1.0])
    >>> round(multiple(0.01 * values, values), 6), multiple(values + 1, values)
    (0.01, None)
    """
    here = np.isfinite(logged) & np.isfinite(values) & (values != 0)
    if here.sum() < 3 or np.ptp(values[here]) <= CLOSE * np.abs(values[here]).max():
        return None
    ratio = logged[here] / values[here]
    constant = float(np.median(ratio))
    return constant if constant and np.abs(ratio / constant - 1).max() <= EXACT else None


@dataclass(frozen=True)
class Candidate:
    """A definition with what it makes of every step.

    Parameters
    ----------
    definition
        Such as ``"seq-mean-token-sum"``.
    estimator
        What it is a mean of: ``"full vocabulary"``, ``"Monte Carlo"``.
    values
        Shape (steps,).
    token_mean
        Mean over tokens by the same estimator, shape (steps,): what the values are in nats per token.
    """

    definition: str
    estimator: str
    values: FloatArray
    token_mean: FloatArray


@dataclass(frozen=True)
class Judgement:
    """What a logged series is.

    Parameters
    ----------
    verdict
        ``"exact"``, ``"close"``, ``"equivalent"``, ``"ambiguous"`` or ``"none fits"``.
    fitting
        Candidates that cannot be told apart, the best first.
    inference
        The comparison.
    factor
        To nats per token, median over steps; NaN without a conversion.
    nats_per_token, low, high
        Mean over the steps compared and its interval: the range over what fits, widened by the largest error.
    """

    verdict: str
    fitting: tuple[Candidate, ...]
    inference: Inference
    factor: float = float("nan")
    nats_per_token: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")


def judge(logged: FloatArray, candidates: Sequence[Candidate], close: float = CLOSE, expected: str = "") -> Judgement:
    """Find what a logged series is, and convert it to nats per token.

    Candidates as they are come first; then negated and in bits, and constant multiples, which must fit exactly.

    Parameters
    ----------
    logged
        Shape (steps,); NaN is absent.
    candidates
        Definitions; of two that fit equally well the first is taken for the better.
    close
        As for `infer`.
    expected
        The definition that the framework declares: of those that cannot be told apart it is taken for the best.

    Returns
    -------
    Judgement
        With a number unless nothing fits, or what fits differs by more than 1 % per token.

    Examples
    --------
    >>> total, tokens = np.array([9.0, 4.0]), np.array([3.0, 2.0])
    >>> kinds = {"token-mean": total / tokens, "token-sum": total}
    >>> known = [Candidate(name, "full vocabulary", values, total / tokens) for name, values in kinds.items()]
    >>> found = judge(total, known)
    >>> found.verdict, found.fitting[0].definition, found.nats_per_token
    ('exact', 'token-sum', 2.5)
    """
    by_name = {f"{one.definition} ({one.estimator})": one for one in candidates}
    found = infer(logged, {name: one.values for name, one in by_name.items()}, close)
    if not found.fitting:
        changed = {f"{one.definition} ({one.estimator})": one for one in _changed(logged, candidates)}
        exact = infer(logged, {name: one.values for name, one in changed.items()}, EXACT)
        if not exact.fitting:
            return Judgement("none fits", (), found)
        by_name, found = changed, exact
    fitting = tuple(sorted((by_name[name] for name in found.fitting), key=lambda one: one.definition != expected))
    here = np.isfinite(logged) & np.all([one.values != 0 for one in fitting], axis=0)
    if not here.any():
        return Judgement("none fits", (), found)
    factors = [one.token_mean[here] / one.values[here] for one in fitting]
    means = [float((logged[here] * factor).mean()) for factor in factors]
    if max(means) - min(means) > ALIKE * abs(means[0]):
        return Judgement("ambiguous", fitting, found)
    verdict = "equivalent" if len(fitting) > 1 else "exact" if found.error <= EXACT else "close"
    room = found.worst * abs(means[0])
    return Judgement(
        verdict, fitting, found, float(np.median(factors[0])), means[0], min(means) - room, max(means) + room
    )


def _changed(logged: FloatArray, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Negate candidates, put them in bits, and scale them by the one constant that may make them fit."""
    for one in candidates:
        yield replace(one, definition=f"minus {one.definition}", values=-one.values)
        yield replace(one, definition=f"{one.definition} in bits", values=one.values / np.log(2))
        constant = multiple(logged, one.values)
        if constant and all(abs(constant / known - 1) > EXACT for known in (1, -1, 1 / np.log(2))):
            yield replace(one, definition=f"{constant:.6g} × {one.definition}", values=constant * one.values)


def lag_correlations(entropy: FloatArray, logp: FloatArray, row: NDArray[np.integer]) -> dict[int, tuple[float, int]]:
    """Correlate the entropy recorded at a token with the surprise of the token before it, of it, and after it.

    A token is drawn from the distribution whose entropy is recorded beside it: of minus its log-probability that is the
    mean. Lists that are shifted against each other correlate most at another lag.

    Parameters
    ----------
    entropy, logp
        Of each token, responses one after the other, shape (tokens,).
    row
        Number of the token's response, shape (tokens,).

    Returns
    -------
    dict
        Lag -> correlation of ``entropy[t]`` and ``-logp[t + lag]`` within responses, and pairs. At lag 1 entropies
        stand one token early, at -1 one late. NaN where nothing varies.

    Examples
    --------
    >>> h = np.array([0.1, 2.0, 0.3, 1.0, 0.2, 1.5])
    >>> found = lag_correlations(h, -h, np.zeros(6, int))
    >>> round(found[0][0], 6), found[0][0] > found[1][0]
    (1.0, True)
    """
    found = {}
    for lag in (-1, 0, 1):
        first, second = slice(max(-lag, 0), len(row) - max(lag, 0)), slice(max(lag, 0), len(row) - max(-lag, 0))
        same = row[first] == row[second]
        x, y = entropy[first][same], -logp[second][same]
        varied = len(x) > 1 and x.std() > 0 and y.std() > 0
        found[lag] = (float(np.corrcoef(x, y)[0, 1]) if varied else float("nan"), len(x))
    return found


def alignment(found: Mapping[int, tuple[float, int]]) -> tuple[str, int]:
    """Say whether token lists are aligned, from their correlations at three lags.

    Parameters
    ----------
    found
        As `lag_correlations` gives.

    Returns
    -------
    verdict
        ``"misaligned"`` when another lag correlates more than lag 0 by four standard errors, ``"aligned"`` when lag 0
        correlates most and by four standard errors above 0, else ``"undecided"``.
    lag
        Where the correlation is greatest.

    Examples
    --------
    >>> alignment({-1: (0.1, 900), 0: (0.6, 1000), 1: (0.1, 900)}), alignment({-1: (0.1, 9), 0: (0.2, 9), 1: (0.4, 9)})
    (('aligned', 0), ('undecided', 1))
    """
    scores = {lag: np.arctanh(np.clip(r, -1 + _ROUNDING, 1 - _ROUNDING)) for lag, (r, n) in found.items() if n > 3}
    scores = {lag: float(score) for lag, score in scores.items() if np.isfinite(score)}
    if 0 not in scores:
        return "undecided", 0
    best = max(scores, key=lambda lag: scores[lag])
    error = 1 / (found[best][1] - 3) ** 0.5
    if best and scores[best] - scores[0] > 4 * error * 2**0.5 and scores[best] > 4 * error:
        return "misaligned", best
    return ("aligned" if not best and scores[0] > 4 * error else "undecided"), best
