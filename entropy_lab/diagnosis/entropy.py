"""Checks of the entropy itself: it collapses, or it explodes."""

from __future__ import annotations

from typing import Final

import numpy as np

from entropy_lab.change_points import LEAST_POINTS
from entropy_lab.diagnosis.checks import (
    CONFIDENCE,
    HEAD,
    Check,
    find_change,
    from_first,
    from_log,
    since_when,
    too_short,
)
from entropy_lab.diagnosis.finding import CRITICAL, WARNING, Case, Measure, Onset, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.diagnosis.payoff import fall, pays, standstill
from entropy_lab.diagnosis.series import Series
from entropy_lab.levels import Contrast, contrast, contrast_between, running_median
from entropy_lab.trends import condense

SPENT: Final = 0.25
"""Share of the first entropy below which nothing is left to pay with, whatever the reward did."""
UNPAID: Final = 0.75
"""Share of the entropy at the reward's standstill below which what went since is called a loss."""
HALVED: Final = 0.5
"""Share of the baseline's entropy below which a run has collapsed beside it."""
RISEN: Final = 1.1
"""Factor by which entropy must have risen from its low point to have exploded, when the reward falls."""
DOUBLED: Final = 2.0
"""The same when the reward only stands still: from the low point, and from the start."""


def collapse(observed: Observed) -> Case | Undecided | None:
    """Find a fall of entropy that was not paid for.

    It is spent, or it fell on while the reward stood still, or it is less than half of the baseline's.
    """
    series = _log_entropy(observed)
    if isinstance(series, Undecided):
        return series
    ends = from_first(contrast(series.values, HEAD, confidence=CONFIDENCE), series.values[:3].max())
    if ends.high >= 0 or _all_solved(observed):
        return None
    still = standstill(observed)
    lost = _change_since(series, still)
    against = _against_baseline(observed, series)
    if ends.high < np.log(SPENT):
        what, since = "entropy is spent", since_when(series, -1, observed)
    elif still is not None and lost is not None and lost.high < np.log(UNPAID):
        what, since = "entropy goes on falling while the reward stands still", still
    elif against is not None and against.high < np.log(HALVED):
        what, since = "entropy fell to less than half of the baseline's", since_when(series, -1, observed)
    else:
        return None
    evidence = [_ratio("entropy at the end over the start's", ends, series), *_endpoints(ends)]
    if still is not None and lost is not None:
        evidence.append(_ratio("the same since the reward stands still", lost, series.between(still.step)))
    if against is not None:
        evidence.append(_ratio("the same over the baseline's", against, series))
    fallen = fall(observed)
    severity = CRITICAL if fallen or ends.high < np.log(SPENT / 2) else WARNING
    evidence += fallen.evidence if fallen else ()
    return Case(severity, f"{what}: {from_log(ends.difference):.0%} of it is left", tuple(evidence), since)


def explosion(observed: Observed) -> Case | Undecided | None:
    """Find a rise of entropy from its low point while the reward fell, or one that doubled it without any gain."""
    series = _log_entropy(observed)
    if isinstance(series, Undecided):
        return series
    change, low, peak = _largest_rise(series)
    if change.low <= np.log(RISEN):
        return None
    fallen = fall(observed, low)
    over_start = change.end - contrast(series.values, HEAD).start
    doubled = min(change.low, over_start) > np.log(DOUBLED) and not pays(observed, low)
    if not fallen and not doubled:
        return None
    what = f"entropy rose {from_log(change.difference):.3g} times" + (
        " and the reward fell" if fallen else " without a gain"
    )
    rise = series.between(low, peak)
    evidence = [_ratio("entropy at its height over its low point", change, rise), *_endpoints(change)]
    evidence += fallen.evidence if fallen else ()
    since = _start_of_rise(rise, observed)
    return Case(CRITICAL if fallen else WARNING, what, tuple(evidence), since)


def _log_entropy(observed: Observed) -> Series | Undecided:
    series = observed.need("entropy", "surprisal")
    positive = series.where(series.values > 0)
    if len(positive) < 0.9 * len(series):
        return Undecided(f"{series.source} is 0 or negative at {len(series) - len(positive)} of {len(series)} steps")
    steps, values = condense(positive.steps, np.log(positive.values))
    return too_short(positive) or Series(steps, values, series.source)


def _change_since(series: Series, onset: Onset | None) -> Contrast | None:
    part = series.between(onset.step) if onset is not None else None
    return contrast(part.values, confidence=CONFIDENCE) if part is not None and len(part) >= LEAST_POINTS else None


def _against_baseline(observed: Observed, series: Series) -> Contrast | None:
    """Compare the log ratio to the baseline's entropy at the end with that at the start, over the steps of both."""
    baseline = observed.baseline
    if baseline is None or baseline.get("entropy", "surprisal") is None:
        return None
    theirs = _log_entropy(baseline)
    if isinstance(theirs, Undecided):
        return None
    both = series.between(*theirs.ends)
    if len(both) < LEAST_POINTS:
        return None
    return contrast(both.values - np.interp(both.steps, theirs.steps, theirs.values), HEAD, confidence=CONFIDENCE)


def _all_solved(observed: Observed) -> bool:
    """Tell whether nearly every group was solved at the end: entropy has nothing left to find there."""
    series = observed.get("all_solved")
    return series is not None and float(np.median(series.values[-max(3, len(series) // 10) :])) > 0.9


def _largest_rise(series: Series) -> tuple[Contrast, float, float]:
    """Find the low point and the height between which the smoothed series rises most; give the rise and their steps."""
    half = max(1, len(series) // 40)
    smooth = running_median(series.values, 2 * half + 1)
    peak = int((smooth - np.minimum.accumulate(smooth)).argmax())
    low = int(smooth[: peak + 1].argmin())
    at_low, at_peak = (slice(max(0, middle - half), middle + half + 1) for middle in (low, peak))
    change = contrast_between(series.values, at_low, at_peak, CONFIDENCE)
    return change, float(series.steps[low]), float(series.steps[peak])


def _start_of_rise(rise: Series, observed: Observed) -> Onset:
    """Date a rise: where it became steeper or jumped; else its low point, up to where a tenth of it was done."""
    if (found := find_change(rise, 1, observed)) is not None:
        return found
    quiet = rise.values <= rise.values[0] + 0.1 * (rise.values.max() - rise.values[0])
    return Onset(rise.ends[0], rise.ends[0], float(rise.steps[quiet].max()))


def _ratio(label: str, change: Contrast, part: Series) -> Measure:
    value, low, high = (from_log(x) for x in (change.difference, change.low, change.high))
    return Measure(label, value, low, high, "times", *part.ends)


def _endpoints(change: Contrast) -> tuple[Measure, ...]:
    ends = (("from", change.start), ("to", change.end))
    return tuple(Measure(f"entropy {word}", from_log(value), unit="nats/token") for word, value in ends)


CHECKS: Final = (
    Check(
        "explosion",
        "entropy explosion",
        (("entropy", "surprisal"),),
        explosion,
        "Entropy that an entropy bonus or the noise of finite updates adds spreads over tokens that do not matter for "
        "the answer: the policy drifts to noise, and the reward goes with it.",
        "arXiv 2604.04894",
        (
            "lower {entropy_bonus} or take it away",
            "lower {learning_rate}",
            "go on from a checkpoint of before the onset",
        ),
    ),
    Check(
        "collapse",
        "entropy collapse",
        (("entropy", "surprisal"),),
        collapse,
        "An update lowers entropy by about the covariance of log-probability and advantage; once rollouts hardly "
        "differ there is nothing left to choose from, and the reward stops rising.",
        "arXiv 2505.22617",
        (
            "raise {clip_high}, 0.28 for 0.2 (Clip-higher, arXiv 2503.14476)",
            "weaken the positive channel on easy prompts by {estimator} (AsymGRPO, arXiv 2604.04894)",
            "use {covariance_clip} (arXiv 2505.22617) or {adaptive_bonus} (arXiv 2505.22312)",
            "lower {learning_rate}",
        ),
    ),
)
