"""A-GRAE: from easy to hard prompts as the batch's mean reward rises, with the positive channel held back at first."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from entropy_lab.advantages.arrays import Array
from entropy_lab.advantages.centred import deviations, over_spread, spread
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.parameters import Choice, Real


def _refocused(rewards: Array, batch_mean: float, *, alpha: float, released: bool) -> Array:
    standardised = over_spread(deviations(rewards), spread(rewards))
    accuracy = rewards.mean(axis=1, keepdims=True)
    easy = 1 - np.sqrt(accuracy) if released else np.sqrt(1 - accuracy)
    # At p = 0 and p = 1 a divisor is 0, but so is the standardised reward, and the paper leaves rescaling out there.
    focus_hard = over_spread(standardised, np.sqrt(accuracy))
    focus_easy = over_spread(standardised, easy)
    blend = batch_mean / 2 * focus_hard + (1 - batch_mean) / 2 * focus_easy
    return np.where(blend > 0, blend * min(1.0, batch_mean / alpha), blend)


def a_grae(
    alpha: Annotated[float, Real(0, 1, open_at="low")] = 1.0,
    variant: Annotated[str, Choice("paper", "released")] = "paper",
) -> Estimator:
    """Asymmetric group-relative advantage estimation.

    ``A = (w/2) A0/sqrt(p) + ((1−w)/2) A0/sqrt(1−p)`` with A0 the GRPO advantage and w the mean reward of all rollouts
    of the call; then positive advantages are multiplied by ``min(1, w/alpha)``. Because of w, advantages depend on
    which groups are in the call, though not on their order.

    Parameters
    ----------
    alpha
        Mean reward from which the positive channel is no longer held back.
    variant
        ``"paper"``, or ``"released"``: the published code divides by ``1 − sqrt(p)`` where the paper has ``sqrt(1−p)``.

    Returns
    -------
    Estimator
        For rewards in {0, 1}. Zero-sum only in a batch with w ≥ ``alpha``. Groups of equal rewards, groups of one among
        them, get 0.

    References
    ----------
    arXiv:2602.05548, Eq. 11-13.

    Examples
    --------
    >>> a_grae()([[1, 0], [1, 0]]).round(6)
    array([[ 0.353553, -0.707107],
           [ 0.353553, -0.707107]])
    """
    released = variant == "released"
    easy = "(1 − √p)" if released else "√(1−p)"
    return Estimator(
        name="a_grae",
        params={"alpha": alpha, "variant": variant},
        formula=(
            f"A = (w/2)·A₀/√p + ((1−w)/2)·A₀/{easy}, A₀ = (r − p)/s, w = batch mean of r; "
            f"positive A times min(1, w/{alpha:g})"
        ),
        reference="arXiv:2602.05548, Eq. 11-13",
        label="A-GRAE" + (f" {alpha:g}" if alpha != 1 else "") + (" (released)" if released else ""),
        kernel=partial(_refocused, alpha=alpha, released=released),
        binary=True,
        reads_batch=True,
    )
