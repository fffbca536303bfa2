"""From the runs of a setting to the numbers of a part: pairing by seed, difference, interval, effect size, p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from entropy_lab.claims.claim import Method, Part
from entropy_lab.claims.common_ground import CommonGround, common_ground, whole_runs
from entropy_lab.claims.intervals import mean_interval
from entropy_lab.claims.paired import hedges_g, interquartile_mean, one_sided_p, probability_of_improvement
from entropy_lab.claims.quantities import QUANTITIES, measure
from entropy_lab.claims.rules import MIN_PAIRS
from entropy_lab.errors import ParameterError
from entropy_lab.plots.series import RunTables, exponent, family

FloatArray = NDArray[np.float64]
Key = tuple[str, float]
"""Family and exponent."""
Measured = dict[int, dict[str, float]]
"""Seed -> quantity -> value."""


@dataclass(frozen=True)
class Setting:
    """The measured runs of one setting. Make one with `read_setting`.

    Parameters
    ----------
    name
        Of the setting.
    common
        What its runs are compared on.
    runs
        Label of a method -> its runs, for every family and exponent.
    left_out
        Runs that are not compared, with the reason.
    """

    name: str
    common: CommonGround
    runs: dict[Key, dict[str, Measured]]
    left_out: tuple[str, ...]

    def lack(self, method: Method) -> str:
        """Say why a method cannot be compared; empty when it can."""
        labels = self.runs.get(_key(method), {})
        if not labels:
            return f"no runs of {method.label}"
        return f"{len(labels)} methods are {method.label}: {', '.join(labels)}" if len(labels) > 1 else ""

    def values(self, method: Method, quantity: str) -> dict[int, float]:
        """Values of a quantity by seed, of a method that `lack` has nothing against."""
        (measured,) = self.runs[_key(method)].values()
        return {seed: values[quantity] for seed, values in measured.items() if quantity in values}


@dataclass(frozen=True)
class Evidence:
    """What a setting says about a part; numbers are NaN where there are too few pairs for them.

    Parameters
    ----------
    part
        The part.
    seeds
        Seeds that all its methods have.
    reason
        Why it cannot be judged; empty when it can.
    means
        Means of the two methods of a plain difference over these seeds; NaN for another contrast.
    difference, sd, interquartile_mean
        Mean, standard deviation and interquartile mean of the paired differences.
    interval
        Bounds and kind, see `entropy_lab.claims.intervals.mean_interval`.
    effect_size
        Hedges' g_z.
    improvement
        Probability that a run of the first method is above (below, where that is claimed) one of the second, over all
        pairs of runs; NaN for a contrast of other than two methods.
    p_for, p_against
        One-sided p of each side of the part, see ``Part.sides``, in the claimed and in the opposite direction.
    """

    part: Part
    seeds: tuple[int, ...]
    reason: str
    means: tuple[float, float]
    difference: float
    sd: float
    interquartile_mean: float
    interval: tuple[float, float, str]
    effect_size: float
    improvement: float
    p_for: FloatArray
    p_against: FloatArray


def read_setting(name: str, runs: Sequence[RunTables]) -> Setting:
    """Measure the runs of one setting.

    Parameters
    ----------
    name
        Of the setting.
    runs
        Its runs. Base policies, which no claim is about, are passed over; runs without a seed cannot be paired.

    Returns
    -------
    Setting
        With the runs of the usual length, see `entropy_lab.claims.common_ground.whole_runs`.

    Raises
    ------
    ParameterError
        Two runs have the same label and seed.
    """
    trained = [run for run in runs if family(run.label, run.method, run.params) != "base"]
    kept, left_out = whole_runs([run for run in trained if isinstance(run.seed, int)])
    unpaired = [run.label for run in trained if not isinstance(run.seed, int)]
    left_out += [f"{label}: its run.json has no seed to pair it by" for label in unpaired]
    common = common_ground(kept)
    found: dict[Key, dict[str, Measured]] = {}
    for run in kept:
        method = family(run.label, run.method, run.params)
        by_label = found.setdefault((method, exponent(method, run.params)), {})
        by_seed = by_label.setdefault(run.label, {})
        if run.seed in by_seed:
            wrong = f"label {run.label!r} has seed {run.seed} twice in setting {name!r}"
            raise ParameterError("runs", wrong, "each seed once", "give one of them another label")
        by_seed[cast(int, run.seed)] = measure(run, common)
    return Setting(name, common, found, tuple(left_out))


def gather(part: Part, setting: Setting, *, confidence: float = 0.95, n_boot: int = 10_000, seed: int = 0) -> Evidence:
    """Compute what a setting says about a part.

    Parameters
    ----------
    part
        The part.
    setting
        The measured runs.
    confidence, n_boot, seed
        Coverage, resamples and seed of the interval. Parts of as many pairs share one draw, so that an interval does
        not depend on which other parts there are.

    Returns
    -------
    Evidence
        Judged where there are at least ``MIN_PAIRS`` pairs.
    """
    lacks = [lack for method in part.methods if (lack := setting.lack(method))]
    values = {} if lacks else {method: setting.values(method, part.quantity) for method in part.methods}
    seeds = sorted(set.intersection(*(set(of) for of in values.values()))) if values else []
    paired = {method: np.array([of[seed] for seed in seeds]) for method, of in values.items()}
    reason = "; ".join(dict.fromkeys(lacks)) or _too_few(part, values, len(seeds))
    if not seeds:
        return _nothing(part, reason)
    difference = part.difference(paired)
    sides = part.sides(paired)
    rng = np.random.default_rng([seed, len(seeds)])
    return Evidence(
        part=part,
        seeds=tuple(seeds),
        reason=reason,
        means=_means(part, paired),
        difference=float(difference.mean()),
        sd=float(difference.std(ddof=1)) if len(seeds) > 1 else np.nan,
        interquartile_mean=interquartile_mean(difference),
        interval=mean_interval(difference, confidence, n_boot=n_boot, rng=rng),
        effect_size=hedges_g(difference),
        improvement=_improvement(part, values),
        p_for=one_sided_p(sides),
        p_against=one_sided_p(-sides),
    )


def _key(method: Method) -> Key:
    return family("", method.name, {}), method.exponent


def _too_few(part: Part, values: dict[Method, dict[int, float]], n: int) -> str:
    """Say why too few pairs are there; empty when there are enough."""
    without = [method.label for method, of in values.items() if not of]
    if without:
        return f"no {QUANTITIES[part.quantity].spoken} in the tables of {', '.join(without)}"
    return (
        ""
        if n >= MIN_PAIRS
        else f"{n} pair{'' if n == 1 else 's'} of seeds for {part.contrast}, fewer than {MIN_PAIRS}"
    )


def _means(part: Part, paired: dict[Method, FloatArray]) -> tuple[float, float]:
    if not part.pair:
        return np.nan, np.nan
    first, second = part.pair
    return float(paired[first].mean()), float(paired[second].mean())


def _improvement(part: Part, values: dict[Method, dict[int, float]]) -> float:
    if not part.pair:
        return np.nan
    first, second = (np.array(list(values[method].values())) for method in part.pair)
    above = probability_of_improvement(first, second)
    return 1 - above if part.relation == "below" else above


def _nothing(part: Part, reason: str) -> Evidence:
    nan, none = np.nan, np.full(1 if part.bounds is None else 2, np.nan)
    return Evidence(part, (), reason, (nan, nan), nan, nan, nan, (nan, nan, ""), nan, nan, none, none)
