"""Training signals over steps: reward, accuracy, length, truncation, clipping (Figure 5)."""

from entropy_lab.batches import GroupBatch
from entropy_lab.fold import Fold
from entropy_lab.means import mean_present
from entropy_lab.run import Run
from entropy_lab.table import Table

NEEDS = ("reward", "correct")
WANTS = ("n_tokens", "truncated")
CLIPPED = ("clip_fraction_low", "clip_fraction_high")
CHANGING = ("beta_pos", "beta_neg", "entropy_target")
"""Columns of runs whose advantages change during training."""


def analyze(run: Run) -> Fold:
    """Means over the rollouts of each step, with the clip fractions that ``metrics.jsonl`` holds.

    Parameters
    ----------
    run
        Any run; without ``n_tokens``, ``truncated`` or the metrics, their columns are null.

    Returns
    -------
    Fold
        Its table has one row per step: step, reward, accuracy (over verified rollouts), mean_length (tokens),
        truncated, clip_fraction_low, clip_fraction_high; and, where the metrics have them, beta_pos, beta_neg and
        entropy_target (nats/token) of advantages that change during training.
    """
    return _Training(run)


class _Training(Fold):
    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: list[tuple[float, ...]] = []

    def add(self, batch: GroupBatch) -> None:
        """Average the step's rollouts."""
        columns = ("reward", "correct", "n_tokens", "truncated")
        self.rows.append((batch.step, *(mean_present(batch[name]) for name in columns)))

    def table(self) -> Table:
        """Give one row per step."""
        names = ("step", "reward", "accuracy", "mean_length", "truncated")
        columns: dict[str, list[float | None]] = {name: [row[i] for row in self.rows] for i, name in enumerate(names)}
        metrics = {row["step"]: row for row in self.run.metrics().to_dicts() if "step" in row}
        logged = {name for row in metrics.values() for name in CHANGING if row.get(name) is not None}
        for name in (*CLIPPED, *(name for name in CHANGING if name in logged)):
            columns[name] = [metrics.get(step, {}).get(name) for step in columns["step"]]
        return Table.of("training", columns)
