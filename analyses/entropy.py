"""Policy entropy over training, of all, correct and wrong rollouts.

Each rollout's mean entropy is weighted by its length, so that a step's value is the mean over its response tokens
(Eq. 3 of arXiv 2604.04894): nats per token, full vocabulary, at the sampling temperature.
"""

import numpy as np

from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.bootstrap import Draws, percentile_interval
from entropy_lab.fold import Fold
from entropy_lab.means import weighted_mean_where
from entropy_lab.run import Run
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
        self.draws = Draws(n_boot, seed)

    def add(self, batch: GroupBatch) -> None:
        """Sum entropy and tokens of the step, per prompt for the interval."""
        counted = (batch["n_tokens"] > 0) & ~np.isnan(batch["entropy"])
        tokens, entropy = np.where(counted, batch["n_tokens"], 0.0), batch["entropy"]
        verdicts = (counted, counted & (batch["correct"] == 1), counted & (batch["correct"] == 0))
        means = [weighted_mean_where(entropy, tokens, kept) for kept in verdicts]
        codes = batch.prompt_codes
        nats, n_tokens = (np.bincount(codes, batch.sum(values)) for values in (entropy * tokens, tokens))
        low, high = self._interval(nats.astype(float), n_tokens.astype(float))
        self.rows.append((batch.step, *means, low, high, tokens.sum()))

    def _interval(self, nats: FloatArray, tokens: FloatArray) -> tuple[float, float]:
        nats, tokens = nats[tokens > 0], tokens[tokens > 0]
        n = len(tokens)
        if n < 2:
            return float("nan"), float("nan")
        drawn = self.draws.counts(n) @ np.column_stack([nats, tokens])
        low, high = percentile_interval(drawn[:, 0] / drawn[:, 1], self.confidence)
        return float(low), float(high)

    def table(self) -> Table:
        """Give one row per step."""
        names = ("step", "entropy", "entropy_correct", "entropy_wrong", "ci_low", "ci_high", "n_tokens")
        columns = {name: [row[i] for row in self.rows] for i, name in enumerate(names)}
        return Table.of("entropy", columns, n_boot=self.n_boot, confidence=self.confidence, seed=self.seed)
