"""Channel ledger: what each channel and group accuracy was predicted to do to entropy, and what entropy did.

The prediction is first order and known up to one scale, which is fitted: docs/analyses.md has the formulas and what
they leave out. The measured change of a step is that from its prompts to the next step's, which are others.
"""

import numpy as np
import polars as pl

from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.channels import CHANNELS, EVERY, channel_frame, channel_sums
from entropy_lab.entropy_change import covariance_contributions, increment_contributions
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.fold import Fold
from entropy_lab.rollout_parts import rollout_parts
from entropy_lab.run import Run
from entropy_lab.scale_fit import ScaleFit, through_origin
from entropy_lab.schema import ANALYSES
from entropy_lab.step_change import StepChanges
from entropy_lab.table import Table

NEEDS = ("logp", "n_tokens", "advantage", "entropy", "correct")
WANTS = ("logp_after",)
PREDICTORS = {"covariance": (), "increment": ("logp_after",), "vanilla": ("token_logp", "token_entropy")}
CENTRED = 1e-6
"""Largest mean advantage that rounding makes of centred advantages."""


def analyze(
    run: Run,
    *,
    predictor: str = "auto",
    span: int | None = None,
    n_boot: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Fold:
    """Predicted entropy change of every update by channel and group accuracy, beside the measured change.

    A channel is the sign of the advantage that training used. Each prediction is a sum over rollouts, so that the rows
    of a step add up to its total.

    Parameters
    ----------
    run
        A run that recorded ``logp``, ``n_tokens``, ``advantage`` and ``entropy``.
    predictor
        ``"covariance"``: minus the within-group covariance of log π / n_tokens and A, mean over groups (arXiv
        2604.04894, Eq. 9-13). ``"increment"``: from the likelihood before and after the update, mean over tokens;
        needs ``logp_after``. ``"vanilla"``: the policy gradient on the logits of each sampled token's state, mean over
        tokens; needs ``token_logp`` and ``token_entropy``. ``"auto"``: increments where they can be fitted, else the
        covariance.
    span
        Steps over which predicted and measured changes are compared; None for an eighth of the run, 10 at most.
    n_boot, confidence, seed
        Resamples (of prompts), coverage and seed of the intervals.

    Returns
    -------
    Fold
        Its table has one row per step, channel and accuracy, and one per step with channel ``all``: step, channel,
        accuracy (null in totals, and where no rollout of the group was verified), n_groups, n_rollouts, advantage (sum
        over the row's rollouts / rollouts of the step: rows add up to the step's mean advantage), covariance,
        increment, vanilla, predicted (the chosen one times its scale); totals also have measured (entropy of the next
        step minus this one's; null before a gap), ci_low, ci_high and residual. Metadata: the parameters, the
        ``predictor`` chosen, ``doubt`` (words, when its scale may be 0 or is negative), ``fits`` (predictor -> a
        `entropy_lab.scale_fit.ScaleFit` or null), ``totals`` (predicted by channel, and measured, over the measured
        steps; null where no step's successor was recorded), ``noise`` (share of the mean square of measured changes
        that sampling makes), ``mean_advantage`` and ``residual_on_advantage`` (fit of the residual on it; null for
        centred advantages).
    """
    if predictor not in ("auto", *PREDICTORS):
        raise ParameterError("predictor", f"is {predictor!r}", f"auto, {', '.join(PREDICTORS)}")
    if missing := [column for column in PREDICTORS.get(predictor, ()) if column not in run.columns]:
        raise MissingColumnError("ledger", missing)
    return _Ledger(predictor, span, StepChanges(n_boot, confidence, seed))


class _Ledger(Fold):
    def __init__(self, predictor: str, span: int | None, changes: StepChanges) -> None:
        self.predictor, self.span, self.changes = predictor, span, changes
        self.columns = PREDICTORS["vanilla"] if predictor == "vanilla" else ()
        self.sums: list[dict[str, FloatArray]] = []

    def add(self, batch: GroupBatch) -> None:
        """Sum the step's parts by channel and accuracy, and its entropy by prompt."""
        n_tokens = np.where((batch["n_tokens"] > 0) & ~np.isnan(batch["entropy"]), batch["n_tokens"], np.nan)
        self.changes.add(batch.step, batch.prompts, batch.sum(n_tokens * batch["entropy"]), batch.sum(n_tokens))
        advantage = batch["advantage"]
        parts = {"advantage": _share(advantage), **_by_rollout(batch, n_tokens)}
        parts["vanilla"] = _by_token(batch) if self.columns else np.full(batch.n_rollouts, np.nan)
        self.sums.append(channel_sums(batch, parts))

    def table(self) -> Table:
        """Fit the scale, and put predicted beside measured."""
        names = list(ANALYSES["ledger"])
        changes = self.changes
        made: dict[str, object] = {"n_boot": changes.n_boot, "confidence": changes.confidence, "seed": changes.seed}
        if not self.sums:
            return Table.of("ledger", {name: [] for name in names}, **made)
        measured = changes.frame().with_columns(channel=pl.lit(EVERY))
        frame = channel_frame(self.sums).join(measured, on=["step", "channel"], how="left", maintain_order="left")
        totals = frame.filter(pl.col("channel") == EVERY)
        fits = {name: self._fit(totals[name], totals["measured"]) for name in PREDICTORS}
        chosen = self.predictor
        if chosen == "auto":
            chosen = "increment" if fits["increment"] else "covariance"
        fit = fits[chosen]
        frame = frame.with_columns(predicted=pl.col(chosen) * fit.scale if fit else pl.lit(None, pl.Float64))
        frame = frame.with_columns(residual=pl.col("measured") - pl.col("predicted"))
        totals = frame.filter(pl.col("channel") == EVERY)
        centred = bool((totals["advantage"].abs() < CENTRED).all())
        on_advantage = None if centred else self._fit(totals["advantage"], totals["residual"])
        made |= {
            "predictor": chosen,
            "doubt": _doubt(fit),
            "fits": {name: one.to_json() if one else None for name, one in fits.items()},
            "totals": _totals(frame),
            "noise": changes.noise,
            "mean_advantage": totals["advantage"].mean(),
            "residual_on_advantage": on_advantage.to_json() if on_advantage else None,
        }
        return Table.of("ledger", {name: frame[name] for name in names}, **made)

    def _fit(self, predicted: pl.Series, measured: pl.Series) -> ScaleFit | None:
        x, y = (values.cast(pl.Float64).fill_null(np.nan).to_numpy() for values in (predicted, measured))
        rng = np.random.default_rng(self.changes.seed)
        return through_origin(x, y, rng, span=self.span, confidence=self.changes.confidence)


def _doubt(fit: ScaleFit | None) -> str:
    if fit is None or not fit.identified:
        return " (0 cannot be ruled out)"
    return " (entropy went against it)" if fit.high < 0 else ""


def _share(values: FloatArray) -> FloatArray:
    """Divide by the number of values, so that their sum is the mean."""
    return values / max(int(np.count_nonzero(~np.isnan(values))), 1)


def _by_rollout(batch: GroupBatch, n_tokens: FloatArray) -> dict[str, FloatArray]:
    """Each rollout's part in the step's covariance (mean over groups) and increments (mean over tokens)."""
    length = np.where(batch["n_tokens"] > 0, batch["n_tokens"], np.nan)
    covariance = covariance_contributions(batch["logp"] / length, batch["advantage"], batch.starts)
    n_groups = int(np.count_nonzero(batch.count(~np.isnan(covariance))))
    increment = increment_contributions(batch["logp"], batch["logp_after"], n_tokens, batch["entropy"])
    counted = float(np.where(np.isnan(increment), 0.0, n_tokens).sum())
    return {"covariance": covariance / max(n_groups, 1), "increment": increment / max(counted, 1)}


def _by_token(batch: GroupBatch) -> FloatArray:
    """Each rollout's part in the vanilla gradient's prediction, mean over tokens."""
    part, tokens, _ = rollout_parts(batch, "vanilla", ~np.isnan(batch["advantage"]))
    return batch["advantage"] * part / max(float(np.nansum(tokens)), 1)


def _totals(frame: pl.DataFrame) -> dict[str, float | None]:
    """Predicted changes by channel and the measured one, summed over the measured steps.

    Where not every step has a prediction, those that have one stand for the others.
    """
    totals = frame.filter(pl.col("channel") == EVERY, pl.col("measured").is_not_null())
    share = totals["predicted"].count() / max(len(totals), 1)
    parts = frame.filter(pl.col("step").is_in(totals["step"].implode()), pl.col("predicted").is_not_null())
    sums = dict(parts.group_by("channel").agg(pl.col("predicted").sum()).rows())
    predicted = {name: sums.get(name, 0.0) / share if share else None for name in (*CHANNELS, EVERY)}
    return {**predicted, "measured": float(totals["measured"].sum()) if len(totals) else None}
