"""Policy entropy over training, of all, correct and wrong rollouts.

Each rollout's mean entropy is weighted by its length, so that a step's value is the mean over its response tokens
(Eq. 3 of arXiv 2604.04894): nats per token, full vocabulary, at the sampling temperature.
"""

from typing import Any

import numpy as np

from entropy_lab.batches import GroupBatch
from entropy_lab.bootstrap import RatioIntervals
from entropy_lab.fold import Fold
from entropy_lab.means import weighted_mean_where
from entropy_lab.run import Run
from entropy_lab.schema import ANALYSES
from entropy_lab.table import Table

NEEDS = ("entropy", "n_tokens", "correct")


def analyze(run: Run, *, n_boot: int = 1000, confidence: float = 0.95, seed: int = 0) -> Fold:
    """Mean entropy of each step with a bootstrap interval over its prompts.

    Parameters
    ----------
    run
        A run that recorded ``entropy`` and ``n_tokens``.
    n_boot, confidence, seed
        Resamples, coverage and seed of the interval; a step of one prompt has none.

    Returns
    -------
    Fold
        Its table has one row per step: step, entropy, entropy_correct, entropy_wrong, ci_low, ci_high (nats/token),
        n_tokens.
    """
    return _Entropy(n_boot, confidence, seed)


class _Entropy(Fold):
    def __init__(self, n_boot: int, confidence: float, seed: int) -> None:
        self.n_boot, self.confidence, self.seed = n_boot, confidence, seed
        self.rows: list[tuple[float, ...]] = []
        self.intervals = RatioIntervals(n_boot, confidence, seed)

    def add(self, batch: GroupBatch) -> None:
        """Sum entropy and tokens of the step, per prompt for the interval."""
        counted = (batch["n_tokens"] > 0) & ~np.isnan(batch["entropy"])
        tokens, entropy = np.where(counted, batch["n_tokens"], 0.0), batch["entropy"]
        verdicts = (counted, counted & (batch["correct"] == 1), counted & (batch["correct"] == 0))
        means = [weighted_mean_where(entropy, tokens, kept) for kept in verdicts]
        codes = batch.prompt_codes
        nats, n_tokens = (
            np.bincount(codes, batch.sum(values)).astype(np.float64) for values in (entropy * tokens, tokens)
        )
        self.intervals.add(nats[n_tokens > 0], n_tokens[n_tokens > 0])
        self.rows.append((batch.step, *means, tokens.sum()))

    def table(self) -> Table:
        """Give one row per step."""
        names = ("step", "entropy", "entropy_correct", "entropy_wrong", "n_tokens")
        columns: dict[str, Any] = {name: [row[i] for row in self.rows] for i, name in enumerate(names)}
        columns["ci_low"], columns["ci_high"] = self.intervals.bounds()
        columns = {name: columns[name] for name in ANALYSES["entropy"]}
        return Table.of("entropy", columns, n_boot=self.n_boot, confidence=self.confidence, seed=self.seed)
