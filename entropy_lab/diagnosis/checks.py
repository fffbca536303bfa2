"""What a check is, and the statistics that checks share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from entropy_lab.change_points import LEAST_POINTS, bend, jump
from entropy_lab.diagnosis.finding import Case, Measure, Onset, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.diagnosis.series import Series
from entropy_lab.levels import Contrast, Level, level
from entropy_lab.trends import MOST_POINTS

ALPHA: Final = 0.01
"""Level of the tests."""
CONFIDENCE: Final = 0.99
"""Coverage of the intervals that decide."""
HEAD: Final = 0.03
"""Share of a run that counts as its start: much goes on in the first tenth."""
FEWEST: Final = 12
"""Fewest steps from which a trend is judged."""


@dataclass(frozen=True)
class Check:
    """One question asked of a run.

    Parameters
    ----------
    name, title
        The finding's, see `Finding`.
    needs
        Groups of signals: of each, at least one must be there.
    judge
        Looks at a run that has them.
    mechanism, reference
        See `Finding`.
    advice
        What to change; ``{clip_high}`` and such stand for settings, see ``frameworks.spoken``.
    """

    name: str
    title: str
    needs: tuple[tuple[str, ...], ...]
    judge: Callable[[Observed], Case | Undecided | None]
    mechanism: str
    reference: str
    advice: tuple[str, ...]


def too_short(series: Series, least: int = FEWEST) -> Undecided | None:
    """Refuse a series of fewer steps than a judgement needs.

    Examples
    --------
    >>> too_short(Series.of([0], [1.0], "metrics: entropy"))
    Undecided(why='metrics: entropy has 1 step; 12 are needed')
    """
    n = len(series)
    return None if n >= least else Undecided(f"{series.source} has {n} step{'s'[: n != 1]}; {least} are needed")


def from_log(value: float) -> float:
    """Give a ratio from its logarithm, at most 1e304: an interval's end may lie beyond any number.

    Examples
    --------
    >>> from_log(0.0), from_log(1e9) > 1e300
    (1.0, True)
    """
    return math.exp(min(float(value), 700.0))


def surely(found: Level | Contrast, sign: int) -> float:
    """Give how large (``sign`` 1) or how far below 0 (-1) a quantity is at least, by its interval.

    Examples
    --------
    >>> surely(Level(-3.0, -4.0, -2.0), -1), surely(Level(-3.0, -4.0, -2.0), 1)
    (2.0, -4.0)
    """
    return min(sign * found.low, sign * found.high)


def from_first(change: Contrast, first: float) -> Contrast:
    """Compare with one of the first values instead of their median.

    The policy before training is seen in the first step only: where updates are large, the second is another one's.

    Examples
    --------
    >>> from_first(Contrast(1.0, 3.0, 2.0, 1.5, 2.5), 1.25)
    Contrast(start=1.25, end=3.0, difference=1.75, low=1.25, high=2.25)
    """
    shift = change.start - float(first)
    return Contrast(float(first), change.end, change.difference + shift, change.low + shift, change.high + shift)


def surest_part(series: Series, sign: int) -> tuple[Level, Series]:
    """Level of the part of a run, its whole or a third, that is most surely above 0, or below.

    Parameters
    ----------
    series
        Not cut in three when it has fewer than 24 steps.
    sign
        1 for above, -1 for below.

    Returns
    -------
    level : Level
        Its interval allows for the choice among the parts (Bonferroni).
    part : Series
        The part.

    Examples
    --------
    >>> found, part = surest_part(Series.of(range(30), [0.0] * 20 + [1.0] * 10, ""), 1)
    >>> found.value, part.ends
    (1.0, (20.0, 29.0))
    """
    thirds = np.array_split(np.arange(len(series)), 3) if len(series) >= 3 * LEAST_POINTS else []
    parts = [series, *(series.where(positions) for positions in thirds)]
    judged = [(level(part.values, 1 - (1 - CONFIDENCE) / len(parts)), part) for part in parts]
    return max(judged, key=lambda found: surely(found[0], sign))


def since_when(series: Series, sign: int, observed: Observed) -> Onset:
    """Date a rise or a fall: the step of a jump, or of a bend, whichever fits better; else the first step.

    Parameters
    ----------
    series
        What rose or fell.
    sign
        1 for a rise, -1 for a fall.
    observed
        The run, for its source of randomness.

    Returns
    -------
    Onset
        The first step where neither changes the series that way at the level `ALPHA`.

    Examples
    --------
    >>> from entropy_lab.run import Run
    >>> series = Series.of(range(20), [0.0] * 12 + [1.0] * 8, "")
    >>> since_when(series, 1, Observed(Run("."), {}))
    Onset(step=12.0, low=12.0, high=12.0)
    """
    return find_change(series, sign, observed) or Onset.at(series.steps[0])


def find_change(series: Series, sign: int, observed: Observed) -> Onset | None:
    """Find the jump or bend of `since_when`, if there is one."""
    if len(series) < LEAST_POINTS:
        return None
    jumped = jump(series.steps, series.values, observed.rng())
    bent = bend(series.steps, series.values, observed.rng())
    found = []
    if jumped.p <= ALPHA and sign * (jumped.after - jumped.before) > 0:
        found.append((jumped.error, jumped))
    if bent.p <= ALPHA and sign * bent.after > max(sign * bent.before, 0.0):
        # A bend has a parameter more: by Akaike's criterion that costs a factor of exp(2 / n).
        found.append((bent.error * math.exp(2 / min(len(series), MOST_POINTS)), bent))
    if not found:
        return None
    best = min(found, key=lambda one: one[0])[1]
    return Onset(best.step, best.low, best.high)


def measured(label: str, found: Level, part: Series, unit: str = "") -> Measure:
    """Word a level as evidence, with the steps that it is the level of."""
    return Measure(label, found.value, found.low, found.high, unit, *part.ends)


def measured_share(label: str, found: Level, part: Series) -> Measure:
    """Word the level of a share: its interval ends where shares end."""
    return Measure(label, found.value, max(0.0, found.low), min(1.0, found.high), "", *part.ends)


def beside(label: str, series: Series | None, part: Series, unit: str = "") -> tuple[Measure, ...]:
    """Word the level that another series has in a part of the run, where it has one."""
    inside = series.between(*part.ends) if series is not None else None
    return (measured(label, level(inside.values), inside, unit),) if inside is not None and len(inside) else ()
