"""What is computed from the rollouts of one step: a number for each signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.means import mean_present, mean_where
from entropy_lab.policy_distance import effective_share

Mask = NDArray[np.bool_]
NAN: Final = float("nan")

RELATIVE: Final = 1e-3
"""Advantages this small beside their root mean square are rounding, or an estimator's epsilon."""
SILENT: Final = 1e-3
"""A channel without any advantage counts as this share of the other, so that the ratio stays finite."""


class Step:
    """The rollouts of one step, with what several measures need of them."""

    def __init__(self, batch: GroupBatch) -> None:
        self.batch = batch

    def __getitem__(self, column: str) -> FloatArray:
        return self.batch[column]

    @cached_property
    def lowest(self) -> FloatArray:
        """Lowest reward of each group, shape (groups,)."""
        lowest: FloatArray = np.minimum.reduceat(self["reward"], self.batch.starts)
        return lowest

    @cached_property
    def highest(self) -> FloatArray:
        """Highest reward of each group, shape (groups,)."""
        highest: FloatArray = np.maximum.reduceat(self["reward"], self.batch.starts)
        return highest

    @cached_property
    def unanimous(self) -> Mask:
        """Groups whose rewards are all equal, shape (groups,)."""
        same: Mask = self.lowest == self.highest
        return same

    @cached_property
    def n_tokens(self) -> FloatArray:
        """Lengths, NaN where there is no token, shape (rollouts,)."""
        return np.where(self["n_tokens"] > 0, self["n_tokens"], np.nan)

    @cached_property
    def advantage_size(self) -> float:
        """Root mean square of the advantages; NaN where there is none."""
        return float(np.sqrt(mean_present(self["advantage"] ** 2)))

    @cached_property
    def judged(self) -> Mask:
        """Rollouts of which verdict and truncation are known, shape (rollouts,)."""
        return ~(np.isnan(self["truncated"]) | np.isnan(self["correct"]))


def share(above: Mask, of: Mask) -> float:
    """Share of those in ``of`` that are in ``above``, too; NaN of none.

    Examples
    --------
    >>> share(np.array([True, True, False]), np.array([True, False, True]))
    0.5
    """
    n = int(np.count_nonzero(of))
    return int(np.count_nonzero(above & of)) / n if n else NAN


def _token_mean(step: Step, sums: FloatArray) -> float:
    """Sum over rollouts of sums over tokens, over the number of tokens."""
    kept = ~np.isnan(sums) & ~np.isnan(step.n_tokens)
    total = np.where(kept, step.n_tokens, 0.0).sum()
    return float(np.where(kept, sums, 0.0).sum() / total) if total else NAN


def _solved(step: Step, accuracy: float) -> float:
    known = step.batch.accuracy
    return share(known == accuracy, ~np.isnan(known))


def _distinct(step: Step, column: str) -> float:
    """Share of groups whose rollouts differ in a column."""
    low, high = (ufunc.reduceat(step[column], step.batch.starts) for ufunc in (np.fmin, np.fmax))
    return share(low < high, ~np.isnan(low)) or NAN


def _lost_to_limit(step: Step) -> float:
    """Accuracy that cut-off rollouts would gain if they did as their group's finished ones, over all rollouts."""
    batch, judged = step.batch, step.judged
    cut, finished = judged & (step["truncated"] == 1), judged & (step["truncated"] == 0)
    n_cut, n_finished = batch.count(cut), batch.count(finished)
    both = (n_cut > 0) & (n_finished > 0)
    accuracy = np.divide(batch.sum(step["correct"], finished), n_finished, out=np.zeros(len(both)), where=both)
    total = judged.sum()
    return float((n_cut * accuracy - batch.sum(step["correct"], cut))[both].sum() / total) if total else NAN


def _cut_and_wrong(step: Step, among_wrong: bool) -> float:
    wrong = step.judged & (step["correct"] == 0)
    return share((step["truncated"] == 1) & wrong, wrong if among_wrong else step.judged)


def _channel_ratio(step: Step) -> float:
    advantage = step["advantage"]
    weight = np.ones(len(advantage)) if np.isnan(step.n_tokens).all() else np.nan_to_num(step.n_tokens)
    positive, negative = (np.where(sign * advantage > 0, sign * advantage, 0.0) @ weight for sign in (1, -1))
    floor = SILENT * max(positive, negative)
    return float(np.log(max(positive, floor) / max(negative, floor))) if floor else NAN


def _mean_advantage(step: Step) -> float:
    size = step.advantage_size
    return mean_present(step["advantage"]) / size if size > 0 else NAN


def _uncentred(step: Step) -> float:
    """Share of mixed groups, all of whose advantages are known, that do not sum to 0."""
    batch, advantage = step.batch, step["advantage"]
    known = batch.count(np.isnan(advantage)) == 0
    off = np.abs(batch.sum(advantage)) > RELATIVE * batch.sum(np.abs(advantage))
    return share(off, known & ~step.unanimous & (batch.sizes > 1))


def _phantom(step: Step, high: bool) -> float:
    """Share of unanimous groups with an advantage, of those above the batch's mean reward or of the others."""
    if not step.advantage_size > 0:
        return NAN
    largest = np.fmax.reduceat(np.abs(step["advantage"]), step.batch.starts)
    above = step.lowest > step["reward"].mean()
    return share(largest > RELATIVE * step.advantage_size, step.unanimous & (above == high))


def _inverted(step: Step) -> float:
    """Share of mixed groups in which a rollout of the highest reward has less advantage than one of the lowest."""
    reward, advantage, starts = step["reward"], step["advantage"], step.batch.starts
    group, known = step.batch.group, ~np.isnan(advantage)
    best, worst = reward == step.highest[group], reward == step.lowest[group]
    least = np.minimum.reduceat(np.where(best & known, advantage, np.inf), starts)
    most = np.maximum.reduceat(np.where(worst & known, advantage, -np.inf), starts)
    comparable = ~step.unanimous & np.isfinite(least) & np.isfinite(most)
    return share(least < most - RELATIVE * np.abs(most), comparable)


def _length_reward(step: Step) -> float:
    """Correlation of reward and length among rollouts of one group and one verdict."""
    kept = ~(np.isnan(step["correct"]) | np.isnan(step.n_tokens))
    alike = (2 * step.batch.group + (step["correct"] == 1))[kept]
    counts = np.maximum(np.bincount(alike), 1)
    dx, dy = (
        values[kept] - (np.bincount(alike, values[kept]) / counts)[alike] for values in (step.n_tokens, step["reward"])
    )
    power = float(np.sqrt((dx @ dx) * (dy @ dy)))
    # Rewards that follow from the verdict leave rounding only.
    return float(dx @ dy) / power if dy @ dy > 1e-9 * len(dy) and power else NAN


def _increment(step: Step, verdict: int) -> float:
    per_token = (step["logp_after"] - step["logp"]) / step.n_tokens
    mixed = ~step.unanimous[step.batch.group]
    return mean_where(per_token, ~np.isnan(per_token) & mixed & (step["correct"] == verdict))


def _coherence(step: Step) -> float:
    """Correlation of minus log-probability with entropy times length, or with length where entropy is absent."""
    expected = step.n_tokens * step["entropy"]
    if np.isnan(expected).all():
        expected = step.n_tokens
    kept = ~(np.isnan(expected) | np.isnan(step["logp"]))
    x, y = expected[kept], -step["logp"][kept]
    if len(x) < 3:
        return NAN
    dx, dy = x - x.mean(), y - y.mean()
    power = float(dx @ dx) * float(dy @ dy)
    return float(dx @ dy) / power**0.5 if power else NAN


MEASURES: Final[Mapping[str, Callable[[Step], float]]] = {
    "entropy": lambda step: _token_mean(step, step["entropy"] * step.n_tokens),
    "surprisal": lambda step: -_token_mean(step, step["logp"]),
    "distinct_logp": partial(_distinct, column="logp"),
    "distinct_entropy": partial(_distinct, column="entropy"),
    "reward": lambda step: mean_present(step["reward"]),
    "accuracy": lambda step: mean_present(step["correct"]),
    "length": lambda step: mean_present(step["n_tokens"]),
    "length_reward": _length_reward,
    "truncated": lambda step: mean_present(step["truncated"]),
    "lost_to_limit": _lost_to_limit,
    "cut_and_wrong": partial(_cut_and_wrong, among_wrong=False),
    "cut_failures": partial(_cut_and_wrong, among_wrong=True),
    "zero_signal": lambda step: float(step.unanimous.mean()),
    "all_solved": partial(_solved, accuracy=1.0),
    "none_solved": partial(_solved, accuracy=0.0),
    "channel_ratio": _channel_ratio,
    "mean_advantage": _mean_advantage,
    "uncentred": _uncentred,
    "phantom_low": partial(_phantom, high=False),
    "phantom_high": partial(_phantom, high=True),
    "inverted": _inverted,
    "mismatch": lambda step: _token_mean(step, step["sampler_logp"] - step["logp"]),
    "effective_sample": lambda step: effective_share(step["logp"] - step["sampler_logp"]),
    "increment": partial(_increment, verdict=1),
    "increment_wrong": partial(_increment, verdict=0),
    "coherence": _coherence,
}
"""How each signal that needs rollouts is computed from those of one step; NaN where it does not exist."""
