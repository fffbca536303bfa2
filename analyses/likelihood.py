"""How much an update raises the likelihood of the rollouts it was made from (Figure 2d).

The increment is log π_new(y|x) - log π_old(y|x), before and after one policy update. Correct rollouts that lose
likelihood are displaced: the update pushed probability elsewhere.
"""

import numpy as np

from entropy_lab.batches import GroupBatch
from entropy_lab.fold import Fold
from entropy_lab.means import mean_where
from entropy_lab.run import Run
from entropy_lab.table import Table

NEEDS = ("logp", "logp_after", "correct")
WANTS = ("n_tokens",)


def analyze(run: Run) -> Fold:
    """Mean log-probability increment of correct and wrong rollouts at each step.

    Averages over rollouts with a verdict and both log-probabilities; the per-token ones over those with tokens, each
    rollout's increment divided by its own length.

    Parameters
    ----------
    run
        A run that recorded ``logp`` and ``logp_after``; without ``n_tokens`` the per-token columns are null.

    Returns
    -------
    Fold
        Its table has one row per step: step, n_correct, n_wrong, increment_correct, increment_wrong (nats/rollout),
        increment_correct_per_token, increment_wrong_per_token (nats/token).
    """
    return _Likelihood()


class _Likelihood(Fold):
    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []

    def add(self, batch: GroupBatch) -> None:
        """Average the step's increments."""
        increment, n_tokens = batch["logp_after"] - batch["logp"], batch["n_tokens"]
        present = ~np.isnan(increment)
        verdicts = [present & (batch["correct"] == verdict) for verdict in (1, 0)]
        per_token = increment / np.where(n_tokens > 0, n_tokens, np.nan)
        means = [mean_where(increment, kept) for kept in verdicts]
        means += [mean_where(per_token, kept & (n_tokens > 0)) for kept in verdicts]
        self.rows.append((batch.step, *(kept.sum() for kept in verdicts), *means))

    def table(self) -> Table:
        """Give one row per step."""
        names = ["step", "n_correct", "n_wrong", "increment_correct", "increment_wrong"]
        names += ["increment_correct_per_token", "increment_wrong_per_token"]
        return Table.of("likelihood", {name: [row[i] for row in self.rows] for i, name in enumerate(names)})
