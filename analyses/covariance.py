"""Covariance of log-likelihood and advantage by group accuracy (Figure 1c).

By the natural-gradient approximation of arXiv 2604.04894, Eq. 9, a step changes a prompt's entropy by about minus the
covariance of log π(y|x) and A(x, y): where it is large, training removes entropy.
"""

import numpy as np
import polars as pl

from entropy_lab import advantages
from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.bootstrap import percentile_interval, resampled_sums
from entropy_lab.covariance import group_covariance
from entropy_lab.errors import ParameterError
from entropy_lab.fold import Fold
from entropy_lab.run import Run
from entropy_lab.table import Table

NEEDS = ("logp", "n_tokens", "advantage", "correct")
COMPACT_AT = 200_000


def analyze(
    run: Run,
    *,
    first_steps: int | None = 40,
    ddof: int = 1,
    bins: int | None = None,
    advantage: str = "recorded",
    n_boot: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Fold:
    """Mean within-group covariance for each group accuracy.

    Per group the sample covariance of l = logp / n_tokens and A over rollouts with n_tokens > 0 and both values
    present, verified or not; groups with fewer than two are left out (Eq. 12-14).

    Parameters
    ----------
    run
        A run that recorded ``logp``, ``n_tokens`` and ``advantage``.
    first_steps
        Use steps below this index; None for all. The paper uses 40.
    ddof
        1 for the unbiased covariance, 0 for the population's.
    bins
        Equal bins of accuracy over [0, 1], reported at their centres; None for one row per exact accuracy.
    advantage
        ``"recorded"``, or an estimator of the registry to be computed anew from ``correct``: what its covariance
        would have been on these rollouts (unverified rollouts then have no advantage).
    n_boot, confidence, seed
        Resamples (of prompts), coverage and seed of the intervals; a row of one prompt has none.

    Returns
    -------
    Fold
        Its table has one row per accuracy: accuracy, n_groups, covariance, ci_low, ci_high (nats/token). Metadata:
        the parameters, ``spearman`` (rank correlation of accuracy and covariance over rows), ``slope`` (least squares
        over groups, nats/token per unit accuracy) with ``slope_ci_low`` and ``slope_ci_high``; these leave out p = 0
        and p = 1, where the advantage of a group is constant and its covariance 0 whatever the policy does.
    """
    if bins is not None and bins < 1:
        raise ParameterError("bins", f"is {bins}", "1 or more")
    return _Covariance(first_steps, ddof, bins, advantage, (n_boot, confidence, seed))


class _Covariance(Fold):
    def __init__(
        self, until: int | None, ddof: int, bins: int | None, advantage: str, boot: tuple[int, float, int]
    ) -> None:
        self.until, self.ddof, self.bins, self.advantage, self.boot = until, ddof, bins, advantage, boot
        self.estimator = None if advantage == "recorded" else advantages.get(advantage)
        self.parts: list[pl.DataFrame] = []

    def add(self, batch: GroupBatch) -> None:
        """Add one row per group: its prompt, accuracy and covariance."""
        length = np.where(batch["n_tokens"] > 0, batch["n_tokens"], np.nan)
        covariance, _ = group_covariance(batch["logp"] / length, self._advantage(batch), batch.starts, ddof=self.ddof)
        accuracy = batch.accuracy
        if self.bins:
            # Not of the accuracy itself: 15/22 times 22 is less than 15.
            place = np.floor(batch.n_correct * self.bins / np.maximum(batch.n_verified, 1))
            accuracy = np.where(np.isnan(accuracy), np.nan, (np.minimum(place, self.bins - 1) + 0.5) / self.bins)
        part = pl.DataFrame({"prompt": batch.prompts, "accuracy": accuracy, "sum": covariance, "n": 1.0})
        self.parts.append(part.filter(pl.col("accuracy").is_not_nan() & pl.col("sum").is_not_nan()))
        if sum(part.height for part in self.parts) > COMPACT_AT:
            self.parts = [self._sums()]

    def _advantage(self, batch: GroupBatch) -> FloatArray:
        if self.estimator is None:
            return batch["advantage"]
        verified = ~np.isnan(batch["correct"])
        values = np.full(batch.n_rollouts, np.nan)
        values[verified] = self.estimator(batch["correct"][verified], batch.group[verified])
        return values

    def _sums(self) -> pl.DataFrame:
        """Sum over groups of the same prompt and accuracy: as many rows as those, however many steps there are."""
        return pl.concat(self.parts).group_by("prompt", "accuracy", maintain_order=True).agg(pl.col("sum", "n").sum())

    def table(self) -> Table:
        """Average over groups of the same accuracy."""
        n_boot, confidence, seed = self.boot
        parameters = {"first_steps": self.until, "ddof": self.ddof, "bins": self.bins, "advantage": self.advantage}
        metadata: dict[str, object] = parameters | {"n_boot": n_boot, "confidence": confidence, "seed": seed}
        sums = self._sums() if self.parts else pl.DataFrame()
        if sums.is_empty():
            nothing = dict.fromkeys(("spearman", "slope", "slope_ci_low", "slope_ci_high"))
            names = ("accuracy", "n_groups", "covariance", "ci_low", "ci_high")
            return Table.of("covariance", {name: [] for name in names}, **metadata, **nothing)
        total, n, replicates, accuracy = self._by_accuracy(sums)
        boot_total, boot_n = replicates[:, : len(accuracy)], replicates[:, len(accuracy) :]
        with np.errstate(invalid="ignore"):
            low, high = percentile_interval(boot_total / boot_n, confidence)
        alone = sums.group_by("accuracy").len().sort("accuracy")["len"].to_numpy() < 2
        mixed = (accuracy > 0) & (accuracy < 1)
        slope = _slope(accuracy[mixed], total[None, mixed], n[None, mixed])[0]
        slopes = _slope(accuracy[mixed], boot_total[:, mixed], boot_n[:, mixed])
        slope_low, slope_high = percentile_interval(slopes, confidence)
        if not slope_low < slope_high:  # of a single prompt all resamples are equal
            slope_low = slope_high = np.array(np.nan)
        columns = {
            "accuracy": accuracy,
            "n_groups": n,
            "covariance": total / n,
            "ci_low": np.where(alone, np.nan, low),
            "ci_high": np.where(alone, np.nan, high),
        }
        rows = pl.DataFrame({"p": accuracy[mixed], "c": (total / n)[mixed]})
        metadata |= {
            "spearman": rows.select(pl.corr("p", "c", method="spearman")).item(),
            "slope": slope,
            "slope_ci_low": slope_low,
            "slope_ci_high": slope_high,
        }
        return Table.of("covariance", columns, **metadata)

    def _by_accuracy(self, sums: pl.DataFrame) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Totals by accuracy, observed and over resampled prompts (totals and counts side by side)."""
        accuracy, column = np.unique(sums["accuracy"].to_numpy(), return_inverse=True)
        row = (sums["prompt"].rank("dense") - 1).to_numpy().astype(np.int64)
        cells = np.zeros((row.max() + 1, 2 * len(accuracy)))
        cells[row, column] = sums["sum"].to_numpy()
        cells[row, column + len(accuracy)] = sums["n"].to_numpy()
        total, n = np.split(cells.sum(axis=0), 2)
        replicates = resampled_sums(cells, self.boot[0], np.random.default_rng(self.boot[2]))
        return total, n, replicates, accuracy


def _slope(accuracy: FloatArray, total: FloatArray, n: FloatArray) -> FloatArray:
    """Least-squares slope over groups from sums by accuracy, shape (replicates, accuracies) -> (replicates,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (n * accuracy).sum(axis=1, keepdims=True) / n.sum(axis=1, keepdims=True)
        centred = accuracy - mean
        spread = (n * centred**2).sum(axis=1)
        slope = (centred * total).sum(axis=1) / spread
    return np.where(spread > 1e-12, slope, np.nan)
