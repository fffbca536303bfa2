"""Settings of the loss, as flat fields of a trainer's configuration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

from entropy_lab.advantages import Modulation
from entropy_lab.advantages.parameters import Choice, Real
from entropy_lab.errors import ParameterError
from entropy_lab.rl.covariance_clip import ClipCov, KlCov
from entropy_lab.rl.entropy_bonus import AdaptiveEntropyCoef
from entropy_lab.rl.kl import KL_ESTIMATORS
from entropy_lab.rl.loss import AGGREGATIONS
from entropy_lab.rl.objective import POLICIES, Objective

Share = Annotated[float, Real(0, 1)]
_SPOKEN: Final = {
    "clip_low": "clip low",
    "clip_high": "clip high",
    "aggregation": "aggregation",
    "entropy_coef": "entropy bonus",
    "entropy_coef_target": "entropy bonus to",
    "dual_clip": "dual clip",
    "clip_cov": "Clip-Cov",
    "kl_cov": "KL-Cov",
    "forking_share": "forking tokens",
    "kl_coef": "KL",
}
"""Settings that make another method of the same estimator, as they are spoken of."""


@dataclass(kw_only=True)
class LossSettings:
    """Settings of the loss; a trainer's configuration inherits them.

    Examples
    --------
    >>> LossSettings(clip_high=0.28).changed()
    {'clip_high': 0.28}
    >>> LossSettings().objective("token-mean", max_new_tokens=26, temperature=1.0).clip_high
    0.2
    """

    clip_low: float = 0.2
    """Width of the clip range of the probability ratio below 1."""
    clip_high: float = 0.2
    """Width of the clip range above 1; 0.28 is Clip-higher."""
    dual_clip: float = 0.0
    """Ratio above which tokens of negative advantage have no gradient either, 10 in DAPO; 0 for no dual clip."""
    aggregation: str = "auto"
    """How token losses become one: auto (the estimator's), token-mean, seq-mean-token-mean, seq-mean-token-sum-norm."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus."""
    entropy_coef_target: float = 0.0
    """Entropy below which the bonus comes by itself, in nats per token (Skywork-OR1); 0 for a constant bonus."""
    clip_cov: Share = 0.0
    """Share of the tokens that Clip-Cov spares, 2e-4 in its paper; 0 for none."""
    kl_cov: Share = 0.0
    """Share of the tokens that KL-Cov penalises, 2e-3 in its paper; 0 for none."""
    kl_cov_coef: float = 1.0
    """Price of a change of their log-probability by 1 nat."""
    forking_share: Share = 1.0
    """Share of the tokens, those with the highest entropy, that counts; 0.2 is 80/20, 1 for all."""
    choose_by: Annotated[str, Choice(*POLICIES)] = "current"
    """Policy that Clip-Cov, KL-Cov and forking tokens are chosen by: current (one pass more) or old."""
    kl_coef: float = 0.0
    """Weight of the divergence from the base policy, which is kept frozen; 0 for none."""
    kl_estimator: Annotated[str, Choice(*KL_ESTIMATORS)] = "k3"
    """How that divergence is estimated: k1, k2, k3."""

    def objective(self, aggregation: str, max_new_tokens: int, temperature: float) -> Objective:
        """Give what an update maximises.

        Parameters
        ----------
        aggregation
            The estimator's, for ``auto``.
        max_new_tokens
            Length limit of a response.
        temperature
            Of the sampling.

        Raises
        ------
        ParameterError
            A setting is out of range, or two exclude each other.
        """
        aggregation = aggregation if self.aggregation == "auto" else self.aggregation
        if aggregation not in AGGREGATIONS:
            raise ParameterError("aggregation", f"is {aggregation!r}", f"auto, {', '.join(AGGREGATIONS)}")
        if self.entropy_coef and self.entropy_coef_target:
            wrong = f"is {self.entropy_coef_target} beside entropy_coef {self.entropy_coef}"
            raise ParameterError("entropy_coef_target", wrong, "one of them: with a target the bonus moves by itself")
        _ = self.adaptive_bonus()
        return Objective(
            aggregation,
            max_new_tokens,
            self.clip_low,
            self.clip_high,
            self.entropy_coef,
            temperature,
            dual_clip=self.dual_clip or None,
            clip_cov=ClipCov(self.clip_cov) if self.clip_cov else None,
            kl_cov=KlCov(self.kl_cov, self.kl_cov_coef) if self.kl_cov else None,
            forking_share=self.forking_share,
            kl_coef=self.kl_coef,
            kl_estimator=self.kl_estimator,
            choose_by=self.choose_by,
        )

    def adaptive_bonus(self) -> AdaptiveEntropyCoef | None:
        """Give what moves the entropy bonus; None when nothing does."""
        return AdaptiveEntropyCoef(self.entropy_coef_target) if self.entropy_coef_target else None

    def changed(self) -> dict[str, Any]:
        """Give the settings that make another method of the same estimator, with their values."""
        defaults = {each.name: each.default for each in fields(LossSettings)}
        return {name: getattr(self, name) for name in _SPOKEN if getattr(self, name) != defaults[name]}

    def method(self, modulation: Modulation, label: str = "") -> dict[str, Any]:
        """Name the method: the advantages, and what was changed in the loss beside them.

        Parameters
        ----------
        modulation
            The advantages.
        label
            For legends, instead of one made from the names.

        Returns
        -------
        dict
            ``method`` of run.json.

        Examples
        --------
        >>> from entropy_lab.advantages import modulation
        >>> LossSettings(clip_high=0.28, kl_cov=0.002).method(modulation("grpo"))["label"]
        'GRPO + clip high 0.28 + KL-Cov 0.002'
        """
        changed = self.changed()
        spoken = [modulation.label, *(f"{_SPOKEN[name]} {value}" for name, value in changed.items())]
        params = {**modulation.params, **changed}
        return {"name": modulation.name, "params": params, "label": label or " + ".join(spoken)}
