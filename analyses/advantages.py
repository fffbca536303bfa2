"""What the advantages were, by group accuracy: sizes, balance and gradient mass of the two channels (Figure 1a, 1b).

Mass is E[A; correct] and E[-A; wrong], the weight that the positive and the negative channel put on a group. Where the
mean advantage is not zero, it moves probability between prompts by itself.
"""

import numpy as np

from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.fold import Fold
from entropy_lab.run import Run
from entropy_lab.table import Table

NEEDS = ("advantage", "correct")


def analyze(run: Run) -> Fold:
    """Mean advantage and gradient mass of each channel at each group accuracy.

    Over verified rollouts with an advantage; a group counts once, whatever its size.

    Parameters
    ----------
    run
        A run that recorded ``advantage``.

    Returns
    -------
    Fold
        Its table has one row per accuracy: accuracy, n_groups, mean_positive, mean_negative, mean, mass_positive,
        mass_negative. ``mean_positive`` is null where no rollout is correct, ``mean_negative`` where none is wrong.
    """
    return _Advantages()


class _Advantages(Fold):
    def __init__(self) -> None:
        self.sums: dict[float, FloatArray] = {}

    def add(self, batch: GroupBatch) -> None:
        """Average within each group and sum over groups of the same accuracy."""
        advantage, correct = batch["advantage"], batch["correct"]
        present = ~(np.isnan(advantage) | np.isnan(correct))
        right, wrong = present & (correct == 1), present & (correct == 0)
        n, n_right, n_wrong = (batch.count(kept) for kept in (present, right, wrong))
        positive, negative = (batch.sum(advantage, kept) for kept in (right, wrong))
        total = positive + negative
        # The five quantities of each group, and which of them it has: without a correct rollout, no positive mean.
        columns = [_ratio(positive, n_right), _ratio(negative, n_wrong), _ratio(total, n), _ratio(positive, n)]
        columns += [_ratio(-negative, n), *((counted > 0).astype(float) for counted in (n_right, n_wrong, n))]
        kept = (n > 0) & ~np.isnan(batch.accuracy)
        values, rows = np.unique(batch.accuracy[kept], return_inverse=True)
        sums = np.column_stack([np.bincount(rows, column[kept], len(values)) for column in columns])
        for accuracy, row in zip(values.tolist(), sums, strict=True):
            self.sums[accuracy] = self.sums.get(accuracy, 0.0) + row

    def table(self) -> Table:
        """Average over groups."""
        order = sorted(self.sums)
        sums = np.array([self.sums[accuracy] for accuracy in order]).reshape(len(order), 8).T
        with np.errstate(invalid="ignore"):
            means = [sums[0] / sums[5], sums[1] / sums[6], *(sums[2:5] / sums[7])]
        names = ("mean_positive", "mean_negative", "mean", "mass_positive", "mass_negative")
        columns = {"accuracy": order, "n_groups": sums[7], **dict(zip(names, means, strict=True))}
        return Table.of("advantages", columns)


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
