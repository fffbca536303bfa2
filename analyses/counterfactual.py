"""Counterfactual map: the pressure on entropy that other advantages would have had on a run's rollouts.

First order, on the run's own rollouts, without training: docs/analyses.md says what such a map cannot say.
"""

from itertools import product
from typing import Any

import numpy as np
import polars as pl

from entropy_lab import advantages
from entropy_lab.advantages.outcomes import advantages_by_outcome, estimator_of, exponents, of_all
from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.entropy_pressure import CellSums, Pressure, extremes, steepest
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.fold import Fold
from entropy_lab.prompt_sums import PromptSums, bounded
from entropy_lab.rollout_parts import PREDICTORS, rollout_parts
from entropy_lab.run import Run
from entropy_lab.schema import ANALYSES
from entropy_lab.table import Table

NEEDS = ("logp", "n_tokens", "correct")
WANTS = ("advantage",)
RECORDED = "recorded"
GRPO, NOWHERE = (0.5, 0.5), (None, None)
COORDINATES = ("name", "label", "beta_pos", "beta_neg")


def analyze(
    run: Run,
    *,
    predictor: str = "covariance",
    first_steps: int | None = None,
    most_beta: float = 1.2,
    n_betas: int = 25,
    n_boot: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Fold:
    """Entropy change per unit of step by every (beta_pos, beta_neg) and registered estimator, on these rollouts.

    Parameters
    ----------
    run
        A run that recorded ``logp``, ``n_tokens`` and ``correct``; its own point needs ``advantage``.
    predictor
        As in the ledger: ``"covariance"`` (mean over groups), or ``"vanilla"``, which needs ``token_logp`` and
        ``token_entropy`` (mean over tokens).
    first_steps
        Use steps below this index; None for all.
    most_beta, n_betas
        The map has ``n_betas`` exponents from 0 to ``most_beta`` on either axis.
    n_boot, confidence, seed
        Resamples (of prompts), coverage and seed of the intervals.

    Returns
    -------
    Fold
        Its table has one row per point: kind ``map`` for the beta plane, ``estimator`` for registered estimators with
        their defaults, ``recorded`` for the advantages that training used; name, label, beta_pos, beta_neg (null off
        the plane), pressure with ci_low and ci_high, rms_advantage, per_rms with bounds (pressure / rms_advantage),
        against_own with bounds (per_rms minus that of the recorded advantages). Metadata: the parameters, ``n_steps``,
        ``n_groups``, ``own`` (name, label and exponents of the run's method), ``direction`` (from an exponent pair, the
        run's own or GRPO's: where per_rms rises most, in degrees with bounds, and its slope), ``holding`` (the map's
        pair nearest to it with a pressure of 0 or more; null without), ``highest`` (the map's pair with the highest
        per_rms), ``left_out`` (estimator -> why).
    """
    if predictor not in PREDICTORS:
        raise ParameterError("predictor", f"is {predictor!r}", ", ".join(PREDICTORS))
    if n_betas < 2 or not 0 < most_beta <= 10:
        raise ParameterError("map", f"has {n_betas} exponents up to {most_beta}", "2 or more, up to 10 at most")
    if missing := [column for column in PREDICTORS[predictor] if column not in run.columns]:
        raise MissingColumnError("counterfactual", missing)
    return _Counterfactual(predictor, first_steps, np.linspace(0, most_beta, n_betas), (n_boot, confidence, seed), run)


class _Counterfactual(Fold):
    def __init__(
        self, predictor: str, until: int | None, betas: FloatArray, boot: tuple[int, float, int], run: Run
    ) -> None:
        self.predictor, self.until, self.betas, self.boot = predictor, until, betas, boot
        self.columns, named = PREDICTORS[predictor], estimator_of(run.method)
        self.name = str(run.method["name"]), str(run.method.get("label") or run.method["name"])
        self.place = exponents(named) if named else None
        self.estimators = {name: advantages.get(name) for name in advantages.names()}
        self.left_out = {name: "tells tokens apart" for name, one in self.estimators.items() if one.token_advantage}
        self.cells = PromptSums(("n_correct", "n_rollouts"), ("effect", "tokens_correct", "tokens_wrong", "weight"))
        self.named = [RECORDED, *(name for name in self.estimators if name not in self.left_out)]
        self.points = PromptSums(("point",), ("change", "weight", "square", "tokens"))
        self.n_steps = self.n_groups = 0

    def add(self, batch: GroupBatch) -> None:
        """Sum by prompt: the effect of A+ - A- by counts, and the parts of what counts do not tell."""
        known, right = ~np.isnan(batch["correct"]), batch["correct"] == 1
        part, tokens, weight = rollout_parts(batch, self.predictor, known)
        found = {"n_correct": batch.n_correct, "n_rollouts": batch.n_verified, "weight": weight}
        counted = ~np.isnan(part)
        # The parts of a group add up to 0; where all are of correct rollouts that would leave rounding.
        mixed = batch.count(right & counted) < batch.count(counted)
        found |= {"effect": np.where(mixed, batch.sum(part, right & counted), 0.0), "tokens": batch.sum(tokens)}
        found["tokens_correct"] = batch.sum(tokens, right & ~np.isnan(tokens))
        found["tokens_wrong"] = found["tokens"] - found["tokens_correct"]
        kept = weight > 0
        groups, prompts = {name: values[kept] for name, values in found.items()}, batch.prompts.filter(pl.Series(kept))
        self.n_steps, self.n_groups = self.n_steps + int(kept.any()), self.n_groups + int(kept.sum())
        self.cells.add(prompts, groups)
        if kept.any():
            self._add_those_of_batches(prompts, groups, float(batch["correct"][known].mean()))
        part, tokens, weight = rollout_parts(batch, self.predictor, ~np.isnan(batch["advantage"]))
        above = batch["advantage"] - np.fmin.reduceat(batch["advantage"], batch.starts)[batch.group]
        own = {"change": batch.sum(part * above), "square": batch.sum(tokens * batch["advantage"] ** 2)}
        if weight.any():
            own |= {"weight": weight, "tokens": batch.sum(tokens), "point": np.zeros(batch.n_groups, int)}
            self.points.add(batch.prompts, own)

    def _add_those_of_batches(self, prompts: pl.Series, groups: dict[str, FloatArray], batch_mean: float) -> None:
        """Sum what depends on the step's mean reward; what does not follows from the cells, once for all steps."""
        for point, name in enumerate(self.named):
            if name != RECORDED and self.estimators[name].reads_batch:
                counts = groups["n_correct"], groups["n_rollouts"], batch_mean
                positive, negative = advantages_by_outcome(self.estimators[name], *counts)
                parts = {"point": np.full(len(prompts), point), "change": groups["effect"] * (positive - negative)}
                parts["square"] = positive**2 * groups["tokens_correct"] + negative**2 * groups["tokens_wrong"]
                self.points.add(prompts, groups | parts)

    def table(self) -> Table:
        """Put the plane, the estimators and the run's own advantages side by side."""
        n_boot, confidence, seed = self.boot
        made: dict[str, Any] = {"n_boot": n_boot, "confidence": confidence, "seed": seed, "predictor": self.predictor}
        made |= {"first_steps": self.until, "n_steps": self.n_steps, "n_groups": self.n_groups}
        made["own"] = dict(zip(COORDINATES, (*self.name, *(self.place or NOWHERE)), strict=True))
        if not self.n_groups:
            return Table.of("counterfactual", dict.fromkeys(ANALYSES["counterfactual"], ()), **made)
        prompts = pl.concat([self.cells.prompts, self.points.prompts]).unique().sort()
        drawn = [sums.resampled(n_boot, np.random.default_rng(seed), prompts) for sums in (self.cells, self.points)]
        n_correct, n_rollouts = self.cells.cells.to_numpy().T
        effect, tokens_correct, tokens_wrong, weight = np.moveaxis(drawn[0], 1, 0)
        plane = CellSums(n_correct, n_rollouts, effect, tokens_correct, tokens_wrong, weight.sum(axis=1))
        names, points = self._points(plane, drawn[1])
        both = plane.at(self.betas, self.betas).flat().beside(points)
        columns: dict[str, Any] = self._places(names)
        columns |= {"rms_advantage": both.rms[0], **bounded("pressure", "ci", both.change, confidence)}
        columns |= bounded("per_rms", "per_rms", both.per_rms, confidence)
        if RECORDED in names:
            against = both.per_rms - points.per_rms[:, [names.index(RECORDED)]]
            columns |= bounded("against_own", "against", against, confidence)
        at = self.place or GRPO
        made |= steepest(plane, at, confidence) | extremes(self.betas, both.per_rms[0, : self.betas.size**2], at)
        missing = dict.fromkeys(ANALYSES["counterfactual"], [None] * len(columns["name"]))
        return Table.of("counterfactual", missing | columns, **made, left_out=self.left_out)

    def _points(self, cells: CellSums, sums: FloatArray) -> tuple[list[str], Pressure]:
        """Give what has a name, in its order: the estimators, and the advantages that training used."""
        change, weight, square, tokens = np.moveaxis(sums, 1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):  # resamples that draw no prompt with an advantage
            summed = Pressure(change / weight, square / tokens)
        named = {name: self.estimators[name] for name in self.named[1:]}
        found, refused = of_all(named, cells.n_correct, cells.n_rollouts)
        self.left_out |= refused
        both = summed.beside(cells.of(*np.array(list(found.values())).transpose(1, 0, 2)))
        names = [*(self.named[int(point)] for point in self.points.cells["point"]), *found]
        order = np.argsort(names)
        return [names[at] for at in order], Pressure(both.change[:, order], both.mean_square[:, order])

    def _places(self, names: list[str]) -> dict[str, Any]:
        """Kind, name, label and exponents of all points: the plane row by row, then those with a name."""
        rows: list[tuple[Any, ...]] = [("map", "asym_grpo", "", *pair) for pair in product(self.betas, self.betas)]
        own = (RECORDED, *self.name, *(self.place or NOWHERE))
        for name in names:
            one = self.estimators.get(name)
            rows.append(("estimator", name, one.label, *(exponents(one) or NOWHERE)) if one else own)
        return dict(zip(("kind", *COORDINATES), zip(*rows, strict=True), strict=True))
