"""Checks of the advantages: which channel they feed, and whether they are what the estimator promises."""

from __future__ import annotations

from typing import Final

import numpy as np

from entropy_lab import advantages
from entropy_lab.diagnosis.checks import CONFIDENCE, Check, from_log, measured, measured_share, since_when, surely
from entropy_lab.diagnosis.finding import CRITICAL, WARNING, Case, Measure, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.errors import EntropyLabError
from entropy_lab.levels import level

OUTWEIGHED: Final = 3.0
"""Ratio of the channels beyond which one of them trains the policy nearly alone."""
MEANT: Final = 10.0
"""The same for an estimator that is off centre by design: it weighs the channels by how many rollouts succeed."""
ALONE: Final = 500.0
"""Ratio from which the other channel is silent."""
HALF: Final = 0.5
"""Share of groups above which a fault is the rule."""
RARE: Final = 0.05
"""Share of groups below which something is the exception."""
OFF_CENTRE: Final = 0.1
"""Mean advantage, over the root mean square, beyond which those of an unknown estimator are off centre."""

CENTRED, FREE, UNKNOWN = "centred", "free", "unknown"


def off_centre(observed: Observed) -> Case | Undecided | None:
    """Find advantages of mixed groups that do not sum to 0, although the estimator promises it or nobody knows it."""
    series, mean = observed.need("uncentred"), observed.get("mean_advantage")
    if mean is None:  # every advantage is 0
        return None
    promise, method = _promise(observed)
    off, size = level(series.values, CONFIDENCE), level(mean.values, CONFIDENCE)
    far = surely(size, 1 if size.value > 0 else -1) > OFF_CENTRE
    if promise == FREE or off.low <= HALF or (promise == UNKNOWN and not far) or _shuffled(observed):
        return None
    promised = f"{method} promises that they do" if promise == CENTRED else "which estimator was meant is not recorded"
    return Case(
        CRITICAL if promise == CENTRED else WARNING,
        f"the advantages of {off.value:.0%} of the mixed groups do not sum to 0; {promised}",
        (
            measured_share("share of mixed groups off centre", off, series),
            measured("mean advantage over its root mean square", size, mean),
        ),
        since_when(series, 1, observed),
    )


def phantom(observed: Observed) -> Case | Undecided | None:
    """Find groups without reward differences that have advantages, although the estimator is a centred one."""
    promise, _ = _promise(observed)
    if promise == FREE:
        return None
    uncentred = observed.get("uncentred")
    if promise == UNKNOWN and (uncentred is None or level(uncentred.values).value > RARE):
        return Undecided("the estimator is not recorded, and mixed groups are not centred either: it may be meant so")
    if _shuffled(observed):
        return None
    words = {"phantom_low": "failed", "phantom_high": "solved"}
    shares = {name: series for name in words if (series := observed.get(name)) is not None}
    found = {name: level(series.values, CONFIDENCE) for name, series in shares.items()}
    bad = [name for name, one in found.items() if one.low > RARE]
    if not bad:
        return None
    worst = max(bad, key=lambda name: found[name].value)
    kinds = " and ".join(f"{found[name].value:.0%} of those that every rollout {words[name]}" for name in bad)
    return Case(
        CRITICAL if promise == CENTRED else WARNING,
        f"groups without a difference in reward have advantages: {kinds}",
        tuple(
            measured_share(f"share of {words[name]} groups with an advantage", found[name], shares[name])
            for name in bad
        ),
        since_when(shares[worst], 1, observed),
    )


def one_sided(observed: Observed) -> Case | Undecided | None:
    """Find a channel whose advantages outweigh the other's by far, tokens counted."""
    series = observed.need("channel_ratio")
    found = level(series.values, CONFIDENCE)
    sign = 1 if found.value > 0 else -1
    low, high = sorted((sign * found.low, sign * found.high))
    if low <= np.log(MEANT if _promise(observed)[0] == FREE else OUTWEIGHED):
        return None
    strong, weak = ("positive", "negative") if sign > 0 else ("negative", "positive")
    ratio, low, high = (from_log(value) for value in (sign * found.value, low, high))
    what = f"the {strong} channel outweighs the {weak} one {ratio:.3g} to 1"
    if ratio > ALONE:
        what = f"only the {strong} channel trains"
    label = f"{strong} over {weak} advantage, by tokens"
    evidence = (Measure(label, ratio, low, high, "to 1", *series.ends),)
    return Case(WARNING, what, evidence, since_when(series, sign, observed))


def _promise(observed: Observed) -> tuple[str, str]:
    """Tell whether the estimator that the run names is a centred one, and how it is called."""
    method = observed.run.method
    name, params = str(method["name"]), method.get("params")
    if name in advantages.modulation_names():
        return FREE, name  # an estimator of each update
    try:
        estimator = advantages.get(name, **dict(params or {}))
    except (EntropyLabError, TypeError, ValueError):
        return UNKNOWN, ""
    return (CENTRED if "zero_sum" in estimator.invariances else FREE), estimator.label


def _shuffled(observed: Observed) -> bool:
    """Tell whether rows are misaligned, which puts any advantage into any group; a check of its own says so."""
    inverted = observed.series.get("inverted")
    return inverted is not None and level(inverted.values, CONFIDENCE).low > RARE


CHECKS: Final = (
    Check(
        "non_centred",
        "advantages not centred",
        (("uncentred",),),
        off_centre,
        "A constant in the advantages of a group moves the probability of whatever was sampled, right or wrong: "
        "through finite steps and shared weights it moves entropy by itself.",
        "arXiv 2503.20783",
        (
            "subtract the group's mean reward before anything else, and check that each group's advantages sum to 0",
            "where an estimator off centre is meant, record its name in run.json; else change {estimator}",
        ),
    ),
    Check(
        "phantom_advantages",
        "advantages in groups without a signal",
        (("phantom_low", "phantom_high"),),
        phantom,
        "In a group whose rollouts all got one reward there is nothing to learn; an advantage there pushes all of them "
        "up or down together.",
        "arXiv 2402.03300",
        (
            "set advantages to 0 where a group's rewards are all equal, before any division by a spread or an epsilon",
            "where a baseline of the whole batch is meant, record it as the method; else change {estimator}",
        ),
    ),
    Check(
        "sign_imbalance",
        "one channel trains alone",
        (("channel_ratio",),),
        one_sided,
        "Positive advantages sharpen the policy on what it does already, negative ones move probability elsewhere; "
        "with one of them nearly alone, nothing balances the entropy.",
        "arXiv 2506.01347",
        (
            "balance the channels by {estimator}: GRPO's weigh the same in every group, AsymGRPO sets each exponent",
            "where long responses make the imbalance, change {aggregation}",
        ),
    ),
)
