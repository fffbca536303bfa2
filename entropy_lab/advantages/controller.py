"""AsymGRPO whose exponents are moved by a controller, so that the policy's entropy holds a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated

from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.modulation import Modulation
from entropy_lab.advantages.parameters import Choice, Real
from entropy_lab.advantages.power import CURVES, Beta, asym_grpo
from entropy_lab.errors import ParameterError

Gain = Annotated[float, Real(0)]


def relative_error(entropy: float, target: float) -> float:
    """How far an entropy is below its target, as a share of the target.

    ``(target − entropy) / target``, and −1 from twice the target on, so that it is bounded at both ends.

    Parameters
    ----------
    entropy
        Non-negative, nats/token.
    target
        Positive, nats/token.

    Returns
    -------
    float
        From −1 to 1; positive below the target.

    Examples
    --------
    >>> relative_error(0.375, 0.5), relative_error(0.625, 0.5), relative_error(5.0, 0.5)
    (0.25, -0.25, -1.0)
    """
    return max((target - entropy) / target, -1.0)


@dataclass(frozen=True)
class Memory:
    """What the controller remembers of an update; all of it is logged.

    Parameters
    ----------
    beta_pos, beta_neg
        Exponents of the update.
    entropy_smoothed
        Moving average of the entropy, nats/token.
    entropy_target
        The target, nats/token.
    """

    beta_pos: float
    beta_neg: float
    entropy_smoothed: float
    entropy_target: float


@dataclass(frozen=True)
class Law:
    """The control law with its constants; parameters as in `entropy_target`.

    Examples
    --------
    >>> law = Law(0.5, "nats", 1.0, 0.25, 0.0, 0.5, 0.5, 0.1, 1.0)
    >>> law.follow(law.begin(0.5), 0.375)  # 25 % below the target: 1 x 0.25 + 0.25 x 0.25
    Memory(beta_pos=0.8125, beta_neg=0.1875, entropy_smoothed=0.375, entropy_target=0.5)
    """

    target: float
    unit: str
    proportional: float
    integral: float
    smoothing: float
    beta_pos: float
    beta_neg: float
    beta_min: float
    beta_max: float

    def begin(self, entropy: float) -> Memory:
        """Start from the start exponents and the first update's entropy."""
        target = self.target * (entropy if self.unit == "first_entropy" else 1.0)
        if target == 0:
            wrong = "the entropy of the first update is 0, and the target is a share of it"
            raise ParameterError("entropy_target", wrong, "an entropy above 0", "unit nats")
        return Memory(self.beta_pos, self.beta_neg, entropy, target)

    def follow(self, before: Memory, entropy: float) -> Memory:
        """Move the exponents from an update to the next one, given the next one's entropy."""
        smoothed = self.smoothing * before.entropy_smoothed + (1 - self.smoothing) * entropy
        error = relative_error(smoothed, before.entropy_target)
        change = error - relative_error(before.entropy_smoothed, before.entropy_target)
        move = self.proportional * change + self.integral * error
        return Memory(
            self._inside(before.beta_pos + move), self._inside(before.beta_neg - move), smoothed, before.entropy_target
        )

    def _inside(self, beta: float) -> float:
        return min(max(beta, self.beta_min), self.beta_max)


class EntropyTarget(Modulation):
    """AsymGRPO under an entropy controller; see `entropy_target`.

    Parameters
    ----------
    law
        The control law.

    Examples
    --------
    >>> controller = entropy_target(target=0.5)
    >>> controller.at(0, steps=80, entropy=0.4).label  # the first update sets the target and starts from GRPO
    'AsymGRPO 0.5/0.5'
    >>> controller.at(1, steps=80, entropy=0.1).label  # the entropy collapses
    'AsymGRPO 1/0.1'
    >>> {name: round(value, 3) for name, value in controller.values().items()}
    {'beta_pos': 1.0, 'beta_neg': 0.1, 'entropy_smoothed': 0.34, 'entropy_target': 0.2}
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._memory: Memory | None = None
        goal = f"{law.target:g}·H₀" if law.unit == "first_entropy" else f"{law.target:g} nats"
        move = f"Δbeta_pos = −Δbeta_neg = {law.proportional:g}·Δe + {law.integral:g}·e"
        super().__init__(
            name="entropy_target",
            params=asdict(law),
            formula=f"{CURVES}; {move}, e = (H* − H)/H*, H* = {goal}",
            reference="arXiv:2604.04894, Eq. 10; the controller is ours",
            label=f"AsymGRPO, entropy held at {goal}",
            initial=asym_grpo(law.beta_pos, law.beta_neg),
        )

    def at(self, step: int, steps: int, entropy: float) -> Estimator:
        """Move the exponents by the entropy, and give AsymGRPO with them; step and number of steps are not read."""
        if not (math.isfinite(entropy) and entropy >= 0):
            raise ParameterError(self.name, f"the entropy of update {step} is {entropy}", "finite, 0 or more")
        self._memory = self._law.follow(self._memory, entropy) if self._memory else self._law.begin(float(entropy))
        return asym_grpo(self._memory.beta_pos, self._memory.beta_neg)

    def values(self) -> dict[str, float]:
        """Give the exponents, the smoothed entropy and the target of the latest update; before the first, nothing."""
        return asdict(self._memory) if self._memory else {}

    def state(self) -> dict[str, float]:
        """Give the same as `values`: the controller has no other memory."""
        return self.values()

    def restore(self, state: Mapping[str, float]) -> None:
        """Continue from the state of another controller with the same parameters."""
        if state:
            self._require(state, tuple(each.name for each in fields(Memory)))
        self._memory = Memory(**state) if state else None


def entropy_target(
    target: Annotated[float, Real(0, open_at="low")] = 0.5,
    unit: Annotated[str, Choice("first_entropy", "nats")] = "first_entropy",
    proportional: Gain = 2.0,
    integral: Gain = 0.05,
    smoothing: Annotated[float, Real(0, 1, open_at="high")] = 0.8,
    beta_pos: Beta = 0.5,
    beta_neg: Beta = 0.5,
    beta_min: Beta = 0.1,
    beta_max: Beta = 1.0,
) -> EntropyTarget:
    """AsymGRPO with exponents that hold the policy's entropy at a target.

    A larger ``beta_pos`` takes weight from prompts that are already solved and so keeps productive entropy; a larger
    ``beta_neg`` removes noisy entropy. So entropy below its target raises ``beta_pos`` and lowers ``beta_neg``, and
    entropy above it does the opposite, by the incremental form of a proportional-integral controller: with the entropy
    H_k of update k, its moving average ``M_k = s M_(k−1) + (1 − s) H_k`` (``M_0 = H_0``) and the error
    ``e_k = (H* − M_k) / H*``, at least −1,

    ``beta_pos ← clip(beta_pos + K_P (e_k − e_(k−1)) + K_I e_k)``, and ``beta_neg`` with the opposite sign.

    The clipped exponents are themselves the integrals, so nothing winds up at a bound. Entropy sums up what the updates
    do to it: an integral term alone would swing about the target. The proportional term damps that, and it brakes a
    fall before the target is reached. The first update uses the start exponents. Law and defaults are ours (assumed);
    the paper names adaptive control as open. Where even the bounds cannot hold the target, the exponents stay there.

    Parameters
    ----------
    target
        The entropy to hold, in ``unit``.
    unit
        ``first_entropy``: H* is ``target`` times the entropy H_0 of the first update. ``nats``: H* is ``target``, in
        nats/token.
    proportional
        K_P, change of an exponent for a change of the error by 1.
    integral
        K_I, change of an exponent per update at an error of 1. With both gains 0 the exponents stay.
    smoothing
        s, weight of the past in the moving average; 0 takes each update's entropy as it is.
    beta_pos, beta_neg
        Exponents of the first update, from ``beta_min`` to ``beta_max``.
    beta_min, beta_max
        Bounds of both exponents. At exactly 0, groups that are all solved (or none solved) would jump from weight 0 to
        1, because 0⁰ = 1; above 1 the mass p ((1−p)/p)^beta of the positive channel grows without bound towards p = 0.

    Returns
    -------
    EntropyTarget
        For rewards in {0, 1}.

    Raises
    ------
    ParameterError
        When a start exponent lies outside the bounds.

    References
    ----------
    arXiv:2604.04894, Eq. 10, Fig. 2 and Limitations.

    Examples
    --------
    >>> controller = entropy_target(target=0.3, unit="nats")
    >>> [controller.at(step, steps=80, entropy=h).label for step, h in enumerate([0.4, 0.4, 0.2])]
    ['AsymGRPO 0.5/0.5', 'AsymGRPO 0.483333/0.516667', 'AsymGRPO 0.74/0.26']
    """
    if not beta_min <= min(beta_pos, beta_neg) <= max(beta_pos, beta_neg) <= beta_max:
        wrong = f"beta_pos is {beta_pos:g} and beta_neg is {beta_neg:g}"
        raise ParameterError("entropy_target", wrong, f"beta_min = {beta_min:g} to beta_max = {beta_max:g}")
    law = Law(target, unit, proportional, integral, smoothing, beta_pos, beta_neg, beta_min, beta_max)
    return EntropyTarget(law)
