"""What an update maximises: every option of the loss, one field each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch

from entropy_lab.errors import ParameterError
from entropy_lab.rl.covariance_clip import ClipCov, KlCov
from entropy_lab.rl.kl import KL_ESTIMATORS
from entropy_lab.rl.loss import Surrogate, clipped_surrogate

POLICIES: Final = ("current", "old")
"""Whose log-probabilities and entropies tokens may be chosen by."""


@dataclass(frozen=True)
class Objective:
    """What an update maximises.

    Raises
    ------
    ParameterError
        When a number is outside its range, a name is unknown, or two options exclude each other.

    Examples
    --------
    >>> Objective(aggregation="token-mean", max_new_tokens=26).clip_high
    0.2
    >>> Objective("token-mean", 26, clip_high=0.28, clip_cov=ClipCov(), kl_coef=0.001).chooses_tokens
    True
    """

    aggregation: str
    """How token losses become one number, see `loss.AGGREGATIONS`."""
    max_new_tokens: int
    """Length limit of a response."""
    clip_low: float = 0.2
    """Width of the clip range below 1."""
    clip_high: float = 0.2
    """Width of the clip range above 1."""
    entropy_coef: float = 0.0
    """Weight of the policy entropy, aggregated as the token losses are, in what is maximised."""
    temperature: float = 1.0
    """The sampling temperature, at which log-probabilities and entropy are taken."""
    dual_clip: float | None = None
    """Ratio above which tokens of negative advantage have no gradient either; None for no dual clip."""
    clip_cov: ClipCov | None = None
    """Take the policy-gradient loss from a few random tokens of high covariance."""
    kl_cov: KlCov | None = None
    """Penalise the tokens with the highest covariance, and clip none: the clip range is not used."""
    forking_share: float = 1.0
    """Share of the tokens, those with the highest entropy, that counts in the loss; 1 for all."""
    kl_coef: float = 0.0
    """Weight of the divergence from the reference policy, aggregated as the token losses are, in what is minimised."""
    kl_estimator: str = "k3"
    """How that divergence is estimated, see `kl.KL_ESTIMATORS`."""
    choose_by: str = "current"
    """Policy whose log-probabilities and entropies choose tokens: current (a pass of its own) or old."""

    def __post_init__(self) -> None:
        if not 0 <= self.clip_low <= 1:
            raise ParameterError("clip_low", f"is {self.clip_low}", "0 to 1: a ratio is never negative")
        if not self.clip_high >= 0:
            raise ParameterError("clip_high", f"is {self.clip_high}", "0 or more")
        if not math.isfinite(self.entropy_coef):
            raise ParameterError("entropy_coef", f"is {self.entropy_coef}", "a finite number")
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise ParameterError("dual_clip", f"is {self.dual_clip}", "above 1")
        if self.kl_cov is not None and (self.clip_cov is not None or self.dual_clip is not None):
            other = "clip_cov" if self.clip_cov is not None else "dual_clip"
            raise ParameterError("kl_cov", f"is given with {other}", "one of them: KL-Cov clips nothing")
        if not 0 < self.forking_share <= 1:
            raise ParameterError("forking_share", f"is {self.forking_share}", "above 0, to 1")
        if not 0 <= self.kl_coef < math.inf:
            raise ParameterError("kl_coef", f"is {self.kl_coef}", "0 or more, finite")
        for name, allowed in (("kl_estimator", KL_ESTIMATORS), ("choose_by", POLICIES)):
            if getattr(self, name) not in allowed:
                raise ParameterError(name, f"is {getattr(self, name)!r}", f"one of {', '.join(allowed)}")

    @property
    def chooses_tokens(self) -> bool:
        """Whether tokens are treated differently by the policy's entropy or log-probability at them."""
        return self.clip_cov is not None or self.kl_cov is not None or self.forking_share < 1

    def surrogate(self, logp_BT: torch.Tensor, old_logp_BT: torch.Tensor, advantage_BT: torch.Tensor) -> Surrogate:
        """Give the token losses of the policy gradient, see `loss.clipped_surrogate`."""
        clip_low, clip_high = (1.0, math.inf) if self.kl_cov is not None else (self.clip_low, self.clip_high)
        dual_clip = math.inf if self.dual_clip is None else self.dual_clip
        return clipped_surrogate(logp_BT, old_logp_BT, advantage_BT, clip_low, clip_high, dual_clip)
