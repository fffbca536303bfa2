"""AsymGRPO whose exponents move along a schedule, from one pair to another over the run."""

from __future__ import annotations

import math
from typing import Annotated

from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.modulation import Modulation
from entropy_lab.advantages.parameters import Choice
from entropy_lab.advantages.power import CURVES, Beta, asym_grpo
from entropy_lab.errors import ParameterError


def progress(shape: str, step: int, steps: int) -> float:
    """How far the exponents have moved at an update.

    With ``t = step / (steps − 1)``: ``t`` for linear, ``(1 − cos πt)/2`` for cosine, 0 for constant. A run of one
    update stays at its start.

    Parameters
    ----------
    shape
        ``constant``, ``linear`` or ``cosine``.
    step
        Index of the update, 0 to ``steps − 1``.
    steps
        Number of updates of the run.

    Returns
    -------
    float
        From 0, exactly at the first update, to 1, exactly at the last one (constant: 0).

    Raises
    ------
    ParameterError
        When there is no such update.

    Examples
    --------
    >>> [progress("linear", step, 5) for step in range(5)]
    [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> [round(progress("cosine", step, 5), 3) for step in range(5)]
    [0.0, 0.146, 0.5, 0.854, 1.0]
    >>> progress("linear", 0, 1)
    0.0
    """
    if not 0 <= step < steps:
        raise ParameterError(
            "schedule", f"step is {step} of a run of {steps} updates", "0 to the number of updates - 1"
        )
    t = step / (steps - 1) if steps > 1 else 0.0
    return {"constant": 0.0, "linear": t, "cosine": (1 - math.cos(math.pi * t)) / 2}[shape]


class BetaSchedule(Modulation):
    """AsymGRPO with exponents that are a function of the step alone; see `asym_grpo_schedule`.

    Parameters
    ----------
    beta_pos, beta_neg
        Exponents at the first update.
    beta_pos_end, beta_neg_end
        Exponents at the last update.
    shape
        As in `progress`.

    Examples
    --------
    >>> schedule = BetaSchedule(1.0, 0.0, 0.0, 1.0, "cosine")
    >>> schedule.at(1, steps=3, entropy=0.4).label
    'AsymGRPO 0.5/0.5'
    """

    def __init__(self, beta_pos: float, beta_neg: float, beta_pos_end: float, beta_neg_end: float, shape: str) -> None:
        self._start, self._end, self._shape = (beta_pos, beta_neg), (beta_pos_end, beta_neg_end), shape
        self._now: tuple[float, float] | None = None
        ends = {"beta_pos_end": beta_pos_end, "beta_neg_end": beta_neg_end}
        moves = f"beta_pos {beta_pos:g} → {beta_pos_end:g}, beta_neg {beta_neg:g} → {beta_neg_end:g}"
        super().__init__(
            name="asym_grpo_schedule",
            params={"beta_pos": beta_pos, "beta_neg": beta_neg, **ends, "shape": shape},
            formula=f"{CURVES}; {moves}, {shape}",
            reference="arXiv:2604.04894, Eq. 10; the schedule is ours",
            label=f"AsymGRPO {beta_pos:g}/{beta_neg:g} → {beta_pos_end:g}/{beta_neg_end:g}, {shape}",
            initial=asym_grpo(beta_pos, beta_neg),
        )

    def at(self, step: int, steps: int, entropy: float) -> Estimator:
        """Give AsymGRPO with the exponents of the step; the entropy is not read."""
        w = progress(self._shape, step, steps)
        beta_pos, beta_neg = ((1 - w) * start + w * end for start, end in zip(self._start, self._end, strict=True))
        self._now = (beta_pos, beta_neg)
        return asym_grpo(beta_pos, beta_neg)

    def values(self) -> dict[str, float]:
        """Give the exponents of the latest update; before the first, nothing."""
        return dict(zip(("beta_pos", "beta_neg"), self._now, strict=True)) if self._now else {}


def asym_grpo_schedule(
    beta_pos: Beta = 0.9,
    beta_neg: Beta = 0.4,
    beta_pos_end: Beta = 0.5,
    beta_neg_end: Beta = 0.5,
    shape: Annotated[str, Choice("constant", "linear", "cosine")] = "linear",
) -> BetaSchedule:
    """AsymGRPO on a schedule: each exponent goes from its start to its end over the run.

    ``beta = (1 − w) beta_start + w beta_end`` with w from `progress`. The default goes from the paper's AsymGRPO to
    GRPO: entropy is kept while there is much to explore, and the weights are balanced at the end. Start, end and shape
    are ours (assumed): the paper holds its exponents constant and names schedules as open.

    Parameters
    ----------
    beta_pos, beta_neg
        Exponents at the first update.
    beta_pos_end, beta_neg_end
        Exponents at the last update; unused with ``shape`` constant. At an end of exactly 0 the groups that are all
        solved (``beta_pos_end``) or none solved (``beta_neg_end``) jump from weight 0 to 1, because 0⁰ = 1.
    shape
        ``constant``, ``linear`` or ``cosine``, which is slow at both ends.

    Returns
    -------
    BetaSchedule
        For rewards in {0, 1}.

    References
    ----------
    arXiv:2604.04894, Eq. 10 and Limitations.

    Examples
    --------
    >>> schedule = asym_grpo_schedule(shape="cosine")
    >>> schedule.label
    'AsymGRPO 0.9/0.4 → 0.5/0.5, cosine'
    >>> [schedule.at(step, steps=80, entropy=0.4).label for step in (0, 39, 79)]
    ['AsymGRPO 0.9/0.4', 'AsymGRPO 0.703976/0.449006', 'AsymGRPO 0.5/0.5']
    """
    return BetaSchedule(beta_pos, beta_neg, beta_pos_end, beta_neg_end, shape)
