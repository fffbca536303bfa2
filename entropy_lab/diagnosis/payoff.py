"""What entropy is paid for with: whether the reward, or validation accuracy, rises, stands still or falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from entropy_lab.change_points import LEAST_POINTS, bend, jump
from entropy_lab.diagnosis.checks import CONFIDENCE, Check, too_short
from entropy_lab.diagnosis.finding import CRITICAL, Case, Measure, Onset, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.diagnosis.series import Series
from entropy_lab.levels import contrast, contrast_between, running_median
from entropy_lab.trends import condense, trend

FALLEN: Final = 0.8
"""Share of its level below which the reward, or validation accuracy, has fallen."""
STILL: Final = 0.2
"""Gain after a bend, over the gain before it, below which the reward stands still."""
_PAYOFFS: Final = (("reward", "reward"), ("validation", "validation accuracy"))


def standstill(observed: Observed) -> Onset | None:
    """Tell since when the reward has not risen.

    Parameters
    ----------
    observed
        A run; without a reward, validation accuracy is taken.

    Returns
    -------
    Onset or None
        The bend after which less than a fifth of the gain before it came; the start where nothing was ever gained; None
        where the reward rises to the end, or there is none.
    """
    series = observed.get("reward", "validation")
    if series is None or len(series) < LEAST_POINTS:
        return None
    steps, values = condense(series.steps, series.values)
    found = bend(steps, values, observed.rng())
    before, after = found.before * (found.step - steps[0]), found.after * (steps[-1] - found.step)
    if before + after <= 0 and trend(steps, values).p_rise >= 0.05:
        return Onset.at(series.steps[0])
    if found.p <= 0.05 and before > 0 and after < STILL * before:
        return Onset(found.step, found.low, found.high)
    return None


@dataclass(frozen=True)
class Fall:
    """A fall of the reward or of validation accuracy: of what, by how much, and since when."""

    of: str
    change: Measure
    since: Onset

    @property
    def evidence(self) -> tuple[Measure, ...]:
        """The change, and the step of the fall."""
        return self.change, Measure(f"step of the fall of {self.of}", self.since.step, self.since.low, self.since.high)


def fall(observed: Observed, since: float | None = None) -> Fall | None:
    """Look for a fall of the reward, or else of validation accuracy.

    Parameters
    ----------
    observed
        A run.
    since
        Compare the end with the level at this step; by default with that at the best one.

    Returns
    -------
    Fall or None
        None where there is none, or too little is left of the run to tell. Each level is that of a tenth of the run.
    """
    for name, label in _PAYOFFS:
        series = observed.get(name)
        if series is None or len(series) < LEAST_POINTS:
            continue
        n, width = len(series), max(3, len(series) // 10)
        smooth = running_median(series.values, width)
        first = int(smooth.argmax()) - width // 2 if since is None else int(np.searchsorted(series.steps, since))
        first = max(first, 0)
        if first + width > n - width:
            continue
        change = contrast_between(series.values, slice(first, first + width), slice(n - width, n), CONFIDENCE)
        # Rewards below 0 have no share of their level: what counts is their range.
        scale = change.start if series.values.min() >= 0 else float(np.ptp(smooth))
        if change.high < 0 and change.difference < -(1 - FALLEN) * scale:
            part = series.where(np.arange(first, n))
            size = Measure(f"change of {label}", change.difference, change.low, change.high, "", *part.ends)
            return Fall(label, size, _step_of_fall(part, observed))
    return None


def _step_of_fall(part: Series, observed: Observed) -> Onset:
    """Date a fall that is known to have happened: no test has to find it first."""
    if len(part) < LEAST_POINTS:
        return Onset(part.ends[0], *part.ends)
    found = jump(part.steps, part.values, observed.rng())
    return Onset(found.step, found.low, found.high)


def fallen_reward(observed: Observed) -> Case | Undecided | None:
    """Find a reward, or a validation accuracy, that fell by a fifth from its best."""
    if refused := too_short(observed.need("reward", "validation")):
        return refused
    found = fall(observed)
    if found is None:
        return None
    return Case(CRITICAL, f"{found.of} fell by {-found.change.value:.3g} from its best", found.evidence, found.since)


def pays(observed: Observed, since: float) -> bool:
    """Tell whether the reward is higher at the end than at a step."""
    series = observed.get("reward")
    part = series.between(since) if series is not None else None
    return part is not None and len(part) >= LEAST_POINTS and contrast(part.values, confidence=CONFIDENCE).low > 0


CHECKS: Final = (
    Check(
        "reward_fall",
        "reward fell",
        (("reward", "validation"),),
        fallen_reward,
        "An update is right for the policy that sampled: one that goes further than its clip range or learning rate "
        "can answer for takes the policy where no rollout was, and it may not find back.",
        "arXiv 1707.06347",
        (
            "see which other finding began at the same step, or before: it is the likelier cause",
            "lower {learning_rate} or {reuse}",
            "go on from a checkpoint of before the fall",
        ),
    ),
)
