"""Policy entropy over training, of all, correct and wrong rollouts.

Each rollout's mean entropy is weighted by its length, so that a step's value is the mean over its response tokens
(Eq. 3 of arXiv 2604.04894): nats per token, full vocabulary, at the sampling temperature.
"""

import numpy as np

from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.bootstrap import percentile_interval, resample_counts
from entropy_lab.fold import Fold
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
        self.counts = np.zeros((n_boot, 0))

    def add(self, batch: GroupBatch) -> None:
        """Sum entropy and tokens of the step, per prompt for the interval."""
        tokens = np.where((batch["n_tokens"] > 0) & ~np.isnan(batch["entropy"]), batch["n_tokens"], 0.0)
        nats = np.where(tokens > 0, batch["entropy"] * tokens, 0.0)
        correct = batch["correct"]
        by_prompt = np.zeros((int(batch.prompt_codes.max()) + 1, 2))
        np.add.at(by_prompt, batch.prompt_codes, np.column_stack([batch.sum(nats), batch.sum(tokens)]))
        low, high = self._interval(by_prompt[by_prompt[:, 1] > 0])
        means = [_mean(nats, tokens, kept) for kept in (tokens > 0, correct == 1, correct == 0)]
        self.rows.append((batch.step, *means, low, high, tokens.sum()))

    def _interval(self, by_prompt: FloatArray) -> tuple[float, float]:
        n = len(by_prompt)
        if n < 2:
            return float("nan"), float("nan")
        if self.counts.shape[1] != n:
            # One draw for all steps of the same number of prompts: a step's interval does not depend on the others.
            self.counts = resample_counts(n, self.n_boot, np.random.default_rng([self.seed, n]))
        means = (self.counts @ by_prompt[:, 0]) / (self.counts @ by_prompt[:, 1])
        low, high = percentile_interval(means, self.confidence)
        return float(low), float(high)

    def table(self) -> Table:
        """Give one row per step."""
        names = ("step", "entropy", "entropy_correct", "entropy_wrong", "ci_low", "ci_high", "n_tokens")
        columns = {name: [row[i] for row in self.rows] for i, name in enumerate(names)}
        return Table.of("entropy", columns, n_boot=self.n_boot, confidence=self.confidence, seed=self.seed)


def _mean(nats: FloatArray, tokens: FloatArray, kept: np.ndarray) -> float:
    total = tokens[kept].sum()
    return float(nats[kept].sum() / total) if total else float("nan")
