"""Checks of the groups: how many of them teach nothing."""

from __future__ import annotations

from typing import Final

import numpy as np

from entropy_lab.change_points import LEAST_POINTS
from entropy_lab.diagnosis.checks import CONFIDENCE, Check, measured_share, too_short
from entropy_lab.diagnosis.finding import WARNING, Case, Measure, Onset, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.diagnosis.series import Series
from entropy_lab.levels import level
from entropy_lab.trends import trend

MOST: Final = 0.5
"""Share above which one kind of group is most of them."""
RATE: Final = 0.75
"""Mean verdict (or reward) of easy prompts at least, and its complement of hard ones: pairs agree often by chance."""
NEARLY_ALL: Final = 0.8
"""Share of solved groups above which a run has hardly anything left to learn from."""
_UNKNOWN: Final = "which groups are solved and which failed cannot be told: rewards are not in [0, 1]"


def too_easy(observed: Observed) -> Case | Undecided | None:
    """Find most groups solved by every rollout at the start, or nearly all of them while the reward stands still."""
    series = _share(observed, "all_solved")
    if series is None:
        return Undecided(_UNKNOWN)
    if refused := too_short(series, LEAST_POINTS):
        return refused
    first, third = series.where(np.arange(_tenth(series))), series.where(np.arange(len(series))[-len(series) // 3 :])
    at_start = level(first.values, CONFIDENCE)
    if at_start.low > MOST and not _mean(observed, first) < RATE:
        what = f"{at_start.value:.0%} of the groups were solved by every rollout at the start"
        return Case(WARNING, what, _shares("all-solved groups", series), Onset.at(series.steps[0]))
    if len(third) < LEAST_POINTS or level(third.values, CONFIDENCE).low <= NEARLY_ALL or _rises(observed, third):
        return None
    what = "nearly all groups are solved by every rollout, and the reward stands still"
    onset = Onset(float(third.steps[0]), float(series.steps[0]), float(third.steps[0]))
    return Case(WARNING, what, _shares("all-solved groups", series), onset)


def too_hard(observed: Observed) -> Case | Undecided | None:
    """Find most groups solved by no rollout, over the run as a whole."""
    series = _share(observed, "none_solved")
    if series is None:
        return Undecided(_UNKNOWN)
    if refused := too_short(series, LEAST_POINTS):
        return refused
    whole, at_start = level(series.values, CONFIDENCE), level(series.values[: _tenth(series)], CONFIDENCE)
    # A run that broke down fails everywhere, too: prompts that are too hard are so from the start.
    if min(whole.low, at_start.value) <= MOST or _mean(observed, series) > 1 - RATE:
        return None
    what = f"{whole.value:.0%} of the groups were solved by no rollout, in the median step"
    return Case(WARNING, what, _shares("none-solved groups", series), Onset.at(series.steps[0]))


def _share(observed: Observed, kind: str) -> Series | None:
    """Give the share of one kind of unanimous groups, or the least that zero-signal groups and the reward allow."""
    if (known := observed.get(kind)) is not None:
        return known
    zero, reward = observed.need("zero_signal"), observed.get("reward")
    if reward is None or reward.values.min() < 0 or reward.values.max() > 1:
        return None
    steps, i, j = np.intersect1d(zero.steps, reward.steps, return_indices=True)
    # No more groups can be solved than the mean reward r, and no more can have failed than 1 - r.
    most_others = 1 - reward.values[j] if kind == "all_solved" else reward.values[j]
    return Series(steps, np.maximum(zero.values[i] - most_others, 0.0), f"{zero.source} less {reward.source}")


def _mean(observed: Observed, part: Series) -> float:
    """Median verdict (or reward) of the steps of a part; NaN, which no rule refuses or demands, without any."""
    series = observed.get("accuracy", "reward")
    inside = series.between(*part.ends).values if series is not None else np.zeros(0)
    return float(np.median(inside)) if len(inside) else float("nan")


def _tenth(series: Series) -> int:
    return max(3, len(series) // 10)


def _shares(label: str, series: Series) -> tuple[Measure, ...]:
    order, k = np.arange(len(series)), _tenth(series)
    parts = (("start", series.where(order[:k])), ("end", series.where(order[-k:])))
    return tuple(measured_share(f"{label} at the {name}", level(part.values), part) for name, part in parts)


def _rises(observed: Observed, part: Series) -> bool:
    reward = observed.get("reward")
    inside = reward.between(*part.ends) if reward is not None else None
    return inside is not None and len(inside) >= 4 and trend(inside.steps, inside.values).p_rise < 0.05


_SILENT: Final = (
    "A group whose rollouts all have the same reward has no advantage under a group baseline: it costs tokens and "
    "teaches nothing, and the gradient comes from few prompts."
)
CHECKS: Final = (
    Check(
        "all_solved",
        "prompts too easy",
        (("all_solved", "zero_signal"),),
        too_easy,
        _SILENT,
        "arXiv 2503.14476",
        ("take prompts that the policy does not solve yet, chosen by its own accuracy", "turn {dynamic_sampling} on"),
    ),
    Check(
        "none_solved",
        "prompts too hard",
        (("none_solved", "zero_signal"),),
        too_hard,
        _SILENT,
        "arXiv 2503.14476",
        (
            "check the verifier on some rollouts of such groups first",
            "begin with easier prompts, or raise {group_size}",
            "turn {dynamic_sampling} on",
        ),
    ),
)
