"""Checks of the updates: what is clipped, whose policy sampled, and where the probability of correct rollouts goes."""

from __future__ import annotations

from typing import Final

import numpy as np

from entropy_lab.change_points import LEAST_POINTS
from entropy_lab.diagnosis.checks import Check, beside, measured, measured_share, since_when, surest_part, too_short
from entropy_lab.diagnosis.finding import CRITICAL, WARNING, Case, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.diagnosis.series import Series

CLIPPED: Final = 0.1
"""Share of tokens without a gradient above which clipping decides what is learned."""
DIVERGED: Final = 0.01
"""Divergence of the sampler from the trainer, over the entropy, that is more than rounding."""
SEVERE: Final = 0.1
"""The same that is critical."""
DISPLACED: Final = 0.05
"""Loss of correct rollouts, over the change of wrong ones, that is more than noise."""


def mismatched(observed: Observed) -> Case | Undecided | None:
    """Find a sampler that differs from the trainer by a hundredth of the entropy, in the whole run or a third."""
    series, entropy = observed.need("mismatch"), observed.need("entropy", "surprisal")
    steps, i, j = np.intersect1d(series.steps, entropy.steps, return_indices=True)
    # Where entropy is all but gone the ratio grows over nothing: a tenth of the typical entropy is the least taken.
    scale = np.maximum(entropy.values[j], 0.1 * float(np.median(entropy.values)))
    if len(steps) < LEAST_POINTS or not (scale > 0).all():
        return Undecided(f"mismatch and an entropy above 0 are both known at too few steps ({len(steps)})")
    relative = Series(steps, series.values[i] / scale, series.source)
    found, part = surest_part(relative, 1)
    if found.low <= DIVERGED:
        return None
    return Case(
        CRITICAL if found.low > SEVERE else WARNING,
        f"another policy sampled than the trainer's: they diverge by {found.value:.1%} of the entropy",
        (
            measured("divergence of the sampler from the trainer over the entropy", found, part),
            *beside("divergence", series, part, "nats/token"),
            *beside("effective share of a batch", observed.get("effective_sample"), part),
        ),
        since_when(relative, 1, observed),
    )


def displaced(observed: Observed) -> Case | Undecided | None:
    """Find updates that lower the probability of correct rollouts of mixed groups, in the whole run or a third."""
    series, wrong = observed.need("increment"), observed.get("increment_wrong")
    if refused := too_short(series, LEAST_POINTS):
        return refused
    found, part = surest_part(series, -1)
    typical = float(np.median(np.abs(wrong.values))) if wrong is not None else 0.0
    if found.high >= -DISPLACED * typical:
        return None
    return Case(
        WARNING,
        f"correct rollouts lose probability: {found.value:.2g} nats per token and update",
        (
            measured("change of correct rollouts by an update", found, part, "nats/token"),
            *beside("change of wrong rollouts", wrong, part, "nats/token"),
        ),
        since_when(series, -1, observed),
    )


def saturated(observed: Observed) -> Case | Undecided | None:
    """Find more than a tenth of all response tokens clipped, in the whole run or a third."""
    series = observed.need("clipped")
    if refused := too_short(series, LEAST_POINTS):
        return refused
    found, part = surest_part(series, 1)
    if found.low <= CLIPPED:
        return None
    what = f"{found.value:.0%} of all response tokens are clipped and have no gradient"
    return Case(
        WARNING, what, (measured_share("share of tokens clipped", found, part),), since_when(series, 1, observed)
    )


CHECKS: Final = (
    Check(
        "mismatch",
        "sampler and trainer differ",
        (("mismatch",), ("entropy", "surprisal")),
        mismatched,
        "The gradient is taken as if the trainer's policy had sampled: another temperature, older weights or another "
        "precision in the sampler bias it, and entropy drifts with the bias.",
        "arXiv 2510.26788",
        (
            "sample and score at one {temperature}",
            "give the sampler the new weights before each batch, or weight rollouts by their importance",
            "compute in the same precision in both",
        ),
    ),
    Check(
        "displacement",
        "correct rollouts lose probability",
        (("increment",),),
        displaced,
        "Negative gradients on wrong rollouts that share tokens or embeddings with correct ones push both down; the "
        "probability goes to neither.",
        "arXiv 2505.18830, arXiv 2410.08847",
        (
            "weaken the negative channel by {estimator}",
            "lower {learning_rate} or {reuse}",
        ),
    ),
    Check(
        "clipping",
        "clipping saturated",
        (("clipped",),),
        saturated,
        "Tokens outside the clip range have no gradient; a tight upper range stops unlikely tokens first, and entropy "
        "falls for want of them.",
        "arXiv 2503.14476",
        ("widen {clip_high} and {clip_low}", "lower {learning_rate} or {reuse}"),
    ),
)
