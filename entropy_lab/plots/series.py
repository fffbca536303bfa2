"""What a curve of a figure stands for: which method a run belongs to, and the mean and interval over its seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.table import Table

FloatArray = NDArray[np.float64]

CONFIDENCE: Final = 0.95
"""Coverage of intervals over seeds."""
LEAST_SEEDS: Final = 3
"""Fewest seeds that have an interval; two have a range."""
INTERVAL: Final = "95 % interval over seeds"
"""What ``band`` of a figure's table says where low and high are that interval."""
PAPER: Final = (
    *("base", "reinforce", "reinforce+entropy_bonus", "grpo", "grpo+entropy_bonus", "grpo+clip_higher"),
    *("grpo+entropy_advantage", "dr_grpo", "pass_at_k", "pos_only", "neg_only", "ent_increase", "ent_decrease"),
    *("asym_grpo_symmetric", "asym_grpo", "asym_grpo+clip_higher"),
)
"""Methods of arXiv 2604.04894 as `family` names them, in the order of its Table 1; with that of its Figure 2 alone."""

BASE: Final = "base"
"""The policy before training."""
_BASES: Final = (
    *("reinforce", "grpo", "asym_grpo", "asym_grpo_symmetric", "pos_only", "neg_only", "ent_decrease", "ent_increase"),
    *("dr_grpo", "rloo", "pass_at_k", "psr", "nsr", "w_reinforce", "qae", "a_grae", "base"),
    *("token_asym_grpo", "asym_grpo_schedule", "entropy_target"),
)
_MODIFIERS: Final = {
    "clip_higher": ("cliphigher",),
    "entropy_bonus": ("entropybonus", "entropyregularisation", "entropyregularization"),
    "entropy_advantage": ("entropyadvantage",),
}


@dataclass(frozen=True)
class RunTables:
    """The analyses of one run, with what a figure needs to know about the run.

    Parameters
    ----------
    label
        Name of its curve; runs of one model with the same label are seeds of one method.
    method
        Name of the advantage estimator, or of the method.
    params
        Parameters of the method: the estimator's own (``beta_pos``, …), and ``clip_low``, ``clip_high`` and
        ``entropy_coef`` where they were changed.
    seed
        Seed of the run; None when unknown.
    group_size
        G, rollouts of a group; None when unknown.
    tables
        Analysis name -> its table; an analysis that was not made has no key.
    model
        Model or setting; a figure has one row of panels for each.
    """

    label: str
    method: str
    params: Mapping[str, Any]
    seed: int | None
    group_size: int | None
    tables: Mapping[str, Table]
    model: str = ""


def family(label: str, method: str, params: Mapping[str, Any]) -> str:
    """Name the method that a run belongs to, whatever its spelling.

    Points of the beta family get their own name: ``asym_grpo`` with exponents 0.5/0.5 is ``grpo``, with 0.7/0 it is
    ``pos_only``. What is added to an estimator follows with a plus sign: ``clip_higher`` (``clip_high`` above
    ``clip_low``), ``entropy_bonus`` (``entropy_coef`` above 0), ``entropy_advantage``; names that say so count too.

    Parameters
    ----------
    label, method, params
        As in `RunTables`.

    Returns
    -------
    str
        Such as ``"grpo+clip_higher"``; an unknown method keeps its own name, in small letters.

    Examples
    --------
    >>> family("mine", "asym_grpo", {"beta_pos": 0.7, "beta_neg": 0.0})
    'pos_only'
    >>> family("REINFORCE + entropy bonus", "reinforce", {"entropy_coef": 0.04})
    'reinforce+entropy_bonus'
    >>> family("Clip-higher", "grpo", {"clip_high": 0.28}), family("a", "entropy_advantage", {})
    ('grpo+clip_higher', 'grpo+entropy_advantage')
    """
    text, spoken = _squeeze(method), _squeeze(label)
    added = {
        "clip_higher": _number(params, "clip_high", 0.2) > _number(params, "clip_low", 0.2),
        "entropy_bonus": _number(params, "entropy_coef", 0.0) > 0,
    }
    names = []
    for name, spellings in _MODIFIERS.items():
        if added.get(name, False) or any(word in text or word in spoken for word in spellings):
            names.append(name)
        for word in spellings:
            text = text.replace(word, "")
    text = re.sub("(with|and|plus)$", "", text) or _squeeze(str(params.get("base", "grpo")))
    base = next((known for known in _BASES if _squeeze(known) == text), text)
    return "+".join((_point(base, params), *names))


def is_base(run: RunTables) -> bool:
    """Whether a run only measures the policy before training.

    Examples
    --------
    >>> is_base(RunTables("Base policy", "base", {}, 0, 8, {}))
    True
    """
    return family(run.label, run.method, run.params) == BASE


def _squeeze(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _number(params: Mapping[str, Any], name: str, default: float) -> float:
    value = params.get(name)
    return float(value) if isinstance(value, int | float) else default


def _point(base: str, params: Mapping[str, Any]) -> str:
    if base != "asym_grpo":
        return base
    beta_pos, beta_neg = _number(params, "beta_pos", 0.9), _number(params, "beta_neg", 0.4)
    if beta_pos == beta_neg:
        return {0.0: "reinforce", 0.5: "grpo"}.get(beta_pos, "asym_grpo_symmetric")
    return "neg_only" if beta_pos == 0 else "pos_only" if beta_neg == 0 else "asym_grpo"


def exponent(name: str, params: Mapping[str, Any]) -> float:
    """Give the exponent that a sweep of a method varies; 0.5, GRPO's, when it is not stated or nothing is swept.

    Parameters
    ----------
    name
        A method as `family` names it.
    params
        Parameters of the run's method.

    Returns
    -------
    float
        ``beta_pos`` of Pos-Only, ``beta_neg`` of Neg-Only, ``beta`` of a flipped curve.

    Examples
    --------
    >>> exponent("neg_only", {"beta_pos": 0, "beta_neg": 0.75}), exponent("grpo", {})
    (0.75, 0.5)
    """
    swept = {"pos_only": "beta_pos", "neg_only": "beta_neg", "ent_decrease": "beta", "ent_increase": "beta"}
    return _number(params, swept.get(name.partition("+")[0], ""), 0.5)


def running_mean(x: FloatArray, y: FloatArray, window: float) -> FloatArray:
    """Centred running mean: at each x the mean of y over ``[x - (window - 1)/2, x + (window - 1)/2]``.

    Parameters
    ----------
    x
        Positions, increasing, shape (n,).
    y
        Values, shape (n,); NaN is missing.
    window
        Width in the unit of ``x``; 11 covers 11 whole steps. At the ends only the part with data is averaged.

    Returns
    -------
    numpy.ndarray
        Shape (n,); NaN where ``y`` is: nothing is filled in.

    Examples
    --------
    >>> running_mean(np.arange(5.0), np.array([0.0, 3, 6, 9, np.nan]), 3)
    array([1.5, 3. , 6. , 7.5, nan])
    """
    known = np.isfinite(y)
    half = (window - 1) / 2
    left, right = np.searchsorted(x, x - half, "left"), np.searchsorted(x, x + half, "right")
    sums = np.concatenate(([0.0], np.cumsum(np.where(known, y, 0.0))))
    counts = np.concatenate(([0], np.cumsum(known)))
    total, n = sums[right] - sums[left], counts[right] - counts[left]
    return np.where(known, total / np.maximum(n, 1), np.nan)


def interval_factors(counts: Iterable[int]) -> dict[int, float]:
    """Half-widths of intervals of a mean, in units of the values' standard deviation.

    ``t(0.975; n - 1) / sqrt(n)`` with Student's t, which is exact for normal values. A percentile bootstrap of three to
    five values covers far less than it says.

    Parameters
    ----------
    counts
        Numbers of values n; those below `LEAST_SEEDS` are left out.

    Returns
    -------
    dict
        n -> factor, 2.484 for n = 3, 1.591 for n = 4, 1.242 for n = 5.

    Examples
    --------
    >>> {n: round(factor, 3) for n, factor in interval_factors([2, 3, 5]).items()}
    {3: 2.484, 5: 1.242}
    """
    wanted = sorted({n for n in counts if n >= LEAST_SEEDS})
    if not wanted:
        return {}
    from scipy.special import stdtrit  # not at the top: it takes 0.2 s, and drawing a stored table needs none

    return {n: float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) / n**0.5 for n in wanted}


def over_seeds(points: pl.DataFrame) -> pl.DataFrame:
    """Average the runs of each series at each x.

    ``y`` is the mean over the runs that have a value there. ``low`` and ``high`` are, for a series of three runs or
    more, the 95 % interval of that mean (see `interval_factors`) where three have a value; for a series of two, the
    smaller and the greater value; a series of one run keeps its own interval. Where no more than half of a series' runs
    have a value (a seed that stopped early, an accuracy that few seeds met) ``y`` is null: a mean over other seeds than
    its neighbours' would jump for that reason alone. ``n_seeds`` is the number of values even there.

    Parameters
    ----------
    points
        Columns series, run, x, y, low, high, raw (Float64; null or NaN is missing); one row per run and x.

    Returns
    -------
    polars.DataFrame
        Columns series, x, y, low, high, raw, n_seeds, n_runs, sorted by series and x; ``n_runs`` counts the runs of
        the series with any value. A series without a value has no row.

    Examples
    --------
    >>> rows = {"series": ["A", "A", "A"], "run": [0, 1, 1], "x": [0.0, 0.0, 1.0], "y": [1.0, 4.0, 6.0]}
    >>> nothing = pl.lit(None, pl.Float64)
    >>> over_seeds(pl.DataFrame(rows).with_columns(low=nothing, high=nothing, raw=nothing)).rows()
    [('A', 0.0, 2.5, 1.0, 4.0, None, 2, 2), ('A', 1.0, None, None, None, None, 1, 2)]
    """
    numbers = ("x", "y", "low", "high", "raw")
    finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in numbers]
    clean = points.with_columns(finite).filter(pl.col("x").is_not_null())
    seen = clean.filter(pl.col("y").is_not_null())
    runs = seen.group_by("series").agg(n_runs=pl.col("run").n_unique().cast(pl.Int64))
    means = (
        clean.group_by("series", "x")
        .agg(
            y=pl.col("y").mean(),
            spread=pl.col("y").std(),
            least=pl.col("y").min(),
            greatest=pl.col("y").max(),
            low=pl.col("low").first(),
            high=pl.col("high").first(),
            raw=pl.col("raw").mean(),
            n_seeds=pl.col("y").count().cast(pl.Int64),
        )
        .join(runs, on="series")
    )
    factors = interval_factors(means["n_seeds"])
    half = pl.col("spread") * pl.col("n_seeds").replace_strict(factors, default=None, return_dtype=pl.Float64)
    single, range_only = pl.col("n_runs") == 1, pl.col("n_runs") < LEAST_SEEDS
    ends = [
        pl.when(single).then(pl.col(own)).when(range_only).then(pl.col(extreme)).otherwise(end).alias(own)
        for own, extreme, end in (("low", "least", pl.col("y") - half), ("high", "greatest", pl.col("y") + half))
    ]
    majority = pl.col("n_seeds") * 2 > pl.col("n_runs")
    return (
        means.with_columns(ends)
        .with_columns(pl.when(majority).then(pl.col("y", "low", "high", "raw")))
        .select("series", "x", "y", "low", "high", "raw", "n_seeds", "n_runs")
        .sort("series", "x")
    )
