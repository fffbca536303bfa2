"""Checks of the lengths: cut off by the limit, or drifting without a gain."""

from __future__ import annotations

from typing import Final

import numpy as np

from entropy_lab.change_points import LEAST_POINTS
from entropy_lab.diagnosis.checks import (
    CONFIDENCE,
    HEAD,
    Check,
    from_first,
    from_log,
    measured,
    measured_share,
    since_when,
    surely,
    surest_part,
    too_short,
)
from entropy_lab.diagnosis.finding import WARNING, Case, Measure, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.diagnosis.series import Series
from entropy_lab.levels import Contrast, contrast, level

LOST: Final = 0.05
"""Accuracy that finished rollouts have over cut-off ones of their groups, above which the limit costs something."""
CUT: Final = 0.1
"""Share of rollouts that are cut off and wrong, above which the limit matters; the rise of those cut off, likewise."""
FAILURES: Final = 0.5
"""Share of the wrong rollouts that are cut off, above which most failures are the limit's."""
PAID: Final = 0.5
"""Correlation of reward and length among equal verdicts, above which the reward is a reward for length."""
GROWN: Final = 1.25
"""Factor by which the mean length must have changed."""


def cut_off(observed: Observed) -> Case | Undecided | None:
    """Find that being cut off costs accuracy, or makes most failures; by scalars, that it grew and the reward fell."""
    share = observed.get("cut_and_wrong")
    if share is None:
        return _cut_off_more(observed)
    if refused := too_short(share, LEAST_POINTS):
        return refused
    failing, costly = _failures(observed, share), _cost(observed)
    if failing:
        what = f"the length limit cuts off {failing[0].value:.0%} of all rollouts, which then fail"
    elif costly:
        what = f"the length limit costs {100 * costly[0].value:.0f} points of accuracy"
    else:
        return None
    return Case(WARNING, what, (*failing, *costly), since_when(share, 1, observed))


def drifting(observed: Observed) -> Case | Undecided | None:
    """Find responses a quarter longer or shorter, without a gain in verdicts or reward, or for a reward of length."""
    series, payoff = observed.need("length"), observed.get("accuracy", "reward")
    if refused := too_short(series):
        return refused
    if series.values.min() <= 0:
        return Undecided(f"{series.source} is 0 at some steps")
    logs = Series(series.steps, np.log(series.values), series.source)
    change = contrast(logs.values, HEAD, confidence=CONFIDENCE)
    sign = 1 if change.difference > 0 else -1
    change = from_first(change, sign * float((sign * logs.values[:3]).min()))
    if surely(change, sign) <= np.log(GROWN):
        return None
    gain = contrast(payoff.values, HEAD, confidence=CONFIDENCE) if payoff is not None and len(payoff) >= 6 else None
    paid = _paid_for_length(observed, sign)
    if gain is not None and gain.low > 0 and not paid:
        return None
    word, ratio = "longer" if sign > 0 else "shorter", from_log(change.difference)
    what = f"responses became {word}, {ratio:.2f} times, " + (
        "and the reward pays for it" if paid else "without a gain"
    )
    return Case(WARNING, what, (*_drift(change, gain, series), *paid), since_when(logs, sign, observed))


def _paid_for_length(observed: Observed, sign: int) -> tuple[Measure, ...]:
    series = observed.get("length_reward")
    if series is None:
        return ()
    found = level(series.values, CONFIDENCE)
    label = "correlation of reward and length among equal verdicts"
    return (measured(label, found, series),) if surely(found, sign) > PAID else ()


def _failures(observed: Observed, share: Series) -> tuple[Measure, ...]:
    failures = observed.get("cut_failures")
    most, part = surest_part(share, 1)
    inside = failures.between(*part.ends) if failures is not None else None
    if most.low <= CUT or inside is None or not len(inside):
        return ()
    among = level(inside.values, CONFIDENCE)
    if among.low <= FAILURES:
        return ()
    return (
        measured_share("share of rollouts cut off and wrong", most, part),
        measured_share("share of the wrong ones that are cut off", among, inside),
    )


def _cost(observed: Observed) -> tuple[Measure, ...]:
    lost = observed.get("lost_to_limit")
    if lost is None or len(lost) < LEAST_POINTS:
        return ()
    cost, part = surest_part(lost, 1)
    return (measured("accuracy lost to the limit, within groups", cost, part),) if cost.low > LOST else ()


def _cut_off_more(observed: Observed) -> Case | Undecided | None:
    series, reward = observed.need("truncated"), observed.get("reward")
    if refused := too_short(series):
        return refused
    if reward is None or len(reward) < 6:
        return Undecided("whether cut-off rollouts fail cannot be told without their verdicts or a reward")
    change = contrast(series.values, HEAD, confidence=CONFIDENCE)
    gain = contrast(reward.values, HEAD, confidence=CONFIDENCE)
    if change.low <= CUT or gain.high >= 0:
        return None
    what = f"{change.end:.0%} of the rollouts are cut off, {change.start:.0%} were at the start, and the reward fell"
    rise = Measure("rise of the share cut off", change.difference, change.low, change.high, "", *series.ends)
    return Case(WARNING, what, (rise, _change("reward", gain, reward)), since_when(series, 1, observed))


def _drift(change: Contrast, gain: Contrast | None, series: Series) -> tuple[Measure, ...]:
    ratio, low, high = (from_log(x) for x in (change.difference, change.low, change.high))
    sizes = [
        Measure(f"mean length {w}", from_log(x), unit="tokens") for w, x in (("from", change.start), ("to", change.end))
    ]
    paid = () if gain is None else (_change("accuracy or reward", gain, series),)
    return (Measure("mean length at the end over the start's", ratio, low, high, "times", *series.ends), *sizes, *paid)


def _change(what: str, gain: Contrast, series: Series) -> Measure:
    return Measure(f"change of {what}", gain.difference, gain.low, gain.high, "", *series.ends)


CHECKS: Final = (
    Check(
        "truncation",
        "length limit too small",
        (("cut_and_wrong", "truncated"),),
        cut_off,
        "A response that is cut off is judged wrong whatever it was about to say: its negative advantage punishes "
        "length, and the reward measures the limit.",
        "arXiv 2503.14476",
        ("raise {length_limit}", "keep cut-off responses out of the loss, or punish them softly: {overlong}"),
    ),
    Check(
        "length_drift",
        "length drift without a gain",
        (("length",),),
        drifting,
        "Lengths that change while verdicts do not are paid for by something else: a reward that counts length, or a "
        "loss that divides by it and so spares long wrong responses.",
        "arXiv 2503.20783",
        ("look for length in the reward", "sum token losses over a fixed length: {aggregation}"),
    ),
)
