"""Finite groups: what groups of G rollouts tell of the true accuracy, and what they make of the advantages.

An estimator is meant at a prompt's true accuracy and gets the share c/G of a few rollouts instead: see
docs/analyses.md.
"""

from typing import Any

import numpy as np
import polars as pl

from entropy_lab import advantages
from entropy_lab.advantages import Estimator
from entropy_lab.advantages.outcomes import estimator_of
from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.errors import ParameterError
from entropy_lab.fold import Fold
from entropy_lab.group_bias import (
    accuracy_points,
    beta_binomial,
    expected_masses,
    mixed_ratio,
    posterior,
    true_masses,
)
from entropy_lab.prompt_sums import PromptSums, bounded
from entropy_lab.run import Run
from entropy_lab.schema import ANALYSES
from entropy_lab.solve_rates import accuracy_spread
from entropy_lab.table import Table
from entropy_lab.validation import polars_dtype

NEEDS = ("correct",)
SIZES = (2, 4, 8, 16, 32, 64, 128)


def analyze(
    run: Run,
    *,
    first_steps: int | None = None,
    tolerance: float = 0.1,
    n_boot: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Fold:
    """Observed against expected counts, the posterior of p, and the bias of plug-in advantages at this group size.

    Parameters
    ----------
    run
        A run that recorded ``correct``.
    first_steps
        Use steps below this index; None for all. Accuracies move in training: over many steps their spread is that of
        steps, too.
    tolerance
        Share of the gradient mass that may be misplaced, for ``needed``.
    n_boot, confidence, seed
        Resamples (of prompts), coverage and seed of the intervals.

    Returns
    -------
    Fold
        Its table has one row per counts (kind ``accuracy``): accuracy, n_correct, n_rollouts, n_groups, share,
        expected (Beta-binomial fitted by moments), excess with bounds, posterior with its credible interval, and
        ratio_positive, ratio_negative of the run's own estimator; and one per estimator (kind ``estimator``): name,
        label, own, bias_positive, bias_negative, misplaced, and needed, the smallest of 2, 4, …, 128 rollouts with
        ``misplaced`` within the tolerance (null for none). Metadata: the parameters, ``group_size`` (the most frequent
        one), ``mean`` and ``strength`` (a + b) of the fitted Beta with bounds, ``own`` (label of the run's estimator,
        null for none), ``left_out`` (estimator -> why).
    """
    if not 0 < tolerance < 1:
        raise ParameterError("tolerance", f"is {tolerance}", "between 0 and 1, both excluded")
    return _GroupSize(first_steps, tolerance, (n_boot, confidence, seed), estimator_of(run.method))


class _GroupSize(Fold):
    def __init__(
        self, until: int | None, tolerance: float, boot: tuple[int, float, int], own: Estimator | None
    ) -> None:
        self.until, self.tolerance, self.boot, self.own = until, tolerance, boot, own
        self.groups = PromptSums(("n_rollouts", "n_correct"), ("n_groups",))

    def add(self, batch: GroupBatch) -> None:
        """Count groups by prompt and counts."""
        kept = batch.n_verified > 0
        columns = {"n_rollouts": batch.n_verified[kept], "n_correct": batch.n_correct[kept]}
        self.groups.add(batch.prompts.filter(pl.Series(kept)), columns | {"n_groups": np.ones(int(kept.sum()))})

    def table(self) -> Table:
        """Put the counts, then the estimators."""
        n_boot, confidence, seed = self.boot
        made: dict[str, Any] = {"first_steps": self.until, "tolerance": self.tolerance, "n_boot": n_boot}
        made |= {"confidence": confidence, "seed": seed, "own": self.own.label if self.own else None}
        cells = self.groups.cells
        if cells.is_empty():
            return Table.of("group_size", dict.fromkeys(ANALYSES["group_size"], ()), **made)
        n, c = cells.to_numpy().T
        counts = self.groups.resampled(n_boot, np.random.default_rng(seed))[:, 0]
        mean, strength = accuracy_spread(c, n, counts)
        size = int(n[np.argmax(np.bincount(n.astype(int), counts[0])[n.astype(int)])])
        made |= {"group_size": size, "left_out": {}}
        for name, values in {"mean": mean, "strength": strength}.items():
            finite = np.where(np.isfinite(values), values, np.nan)[:, None]
            made |= {key: float(value[0]) for key, value in bounded(name, name, finite, confidence).items()}
        rows = self._by_accuracy(c, n, counts, (mean, strength))
        if not np.isnan(strength[0]):
            p, weights = accuracy_points(float(mean[0]), float(strength[0]))
            rows |= self._ratios(c / n, size, float(mean[0]))
            others = [advantages.get(name) for name in advantages.names()]
            tried = [self.own] * bool(self.own) + [one for one in others if not one.token_advantage and one != self.own]
            found = [self._of_estimator(one, p, weights, size, made["left_out"]) for one in tried if one]
            frame = pl.concat([_shaped(pl.DataFrame(rows)), *(_shaped(pl.DataFrame(row)) for row in found if row)])
        else:
            frame = _shaped(pl.DataFrame(rows))
        return Table.of("group_size", {name: frame[name] for name in frame.columns}, **made)

    def _by_accuracy(
        self, c: FloatArray, n: FloatArray, counts: FloatArray, spread: tuple[FloatArray, FloatArray]
    ) -> dict[str, Any]:
        """Shares of groups with equal counts, observed and expected: those with n rollouts split as the fit says."""
        total = counts.sum(axis=1, keepdims=True)
        of_size = counts @ (n[:, None] == n)
        share, expected = counts / total, beta_binomial(c, n, *spread) * of_size / total
        rows: dict[str, Any] = {"kind": ["accuracy"] * len(c), "label": [""] * len(c), "accuracy": c / n}
        rows |= {"n_correct": c, "n_rollouts": n, "n_groups": counts[0], "share": share[0], "expected": expected[0]}
        rows |= bounded("excess", "excess", share - expected, self.boot[1])
        values = posterior(c, n, float(spread[0][0]), float(spread[1][0]), self.boot[1])
        return rows | dict(zip(("posterior", "posterior_low", "posterior_high"), values, strict=True))

    def _ratios(self, accuracy: FloatArray, size: int, batch_mean: float) -> dict[str, FloatArray]:
        if self.own is None or self.own.token_advantage:
            return {}
        try:
            positive, negative = mixed_ratio(self.own, accuracy, size, batch_mean)
        except ParameterError:  # groups that it refuses: said in `left_out`
            return {}
        return {"ratio_positive": positive, "ratio_negative": negative}

    def _of_estimator(
        self, one: Estimator, p: FloatArray, weights: FloatArray, size: int, left_out: dict[str, str]
    ) -> dict[str, Any] | None:
        """Bias at this group size, and the rollouts that it would take."""
        batch_mean = float(weights @ p)
        true = np.stack(true_masses(one, p, batch_mean))
        masses: dict[int, FloatArray] = {}
        for tried in sorted({size, *SIZES}):
            try:
                masses[tried] = np.stack(expected_masses(one, p, tried, batch_mean))
            except ParameterError as error:
                left_out |= {one.name: str(error)} if tried == size else {}
        if size not in masses:
            return None
        whole = np.abs(true).sum(axis=0) @ weights
        misplaced = {
            tried: _ratio(np.abs(found - true).sum(axis=0) @ weights, whole) for tried, found in masses.items()
        }
        bias = [_ratio(found @ weights, exact @ weights) - 1 for found, exact in zip(masses[size], true, strict=True)]
        row = {"kind": ["estimator"], "name": [one.name], "label": [one.label], "own": [one is self.own]}
        row |= {"bias_positive": [bias[0]], "bias_negative": [bias[1]], "misplaced": [misplaced[size]]}
        needed = [tried for tried, value in misplaced.items() if value <= self.tolerance]
        return {**row, "needed": [min(needed, default=None)], "n_rollouts": [size]}


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else float("nan")


def _shaped(frame: pl.DataFrame) -> pl.DataFrame:
    """Bring rows to all columns of the table."""
    of = {name: pl.col(name) if name in frame.columns else pl.lit(None) for name in ANALYSES["group_size"]}
    return frame.select(
        value.cast(polars_dtype(ANALYSES["group_size"][name].dtype)).alias(name) for name, value in of.items()
    )
