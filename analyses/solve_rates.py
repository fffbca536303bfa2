"""Shares of all-solved and none-solved groups, per epoch or step (Figure 2c).

A group that every rollout solves, or none does, has no advantage under a centred estimator: it costs tokens and teaches
nothing. The expected shares say how many there would be if prompts differed in difficulty smoothly.
"""

import numpy as np

from entropy_lab.batches import GroupBatch
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.fold import Fold
from entropy_lab.run import Run
from entropy_lab.solve_rates import solve_rates
from entropy_lab.table import Table

NEEDS = ("correct",)
WANTS = ("epoch",)


def analyze(run: Run, *, by: str = "epoch") -> Fold:
    """All-solved and none-solved shares with those expected under a Beta-binomial.

    Parameters
    ----------
    run
        A run that recorded ``epoch`` (not needed with ``by="step"``).
    by
        ``"epoch"`` or ``"step"``.

    Returns
    -------
    Fold
        Its table has one row per epoch: epoch, n_groups, all_solved, none_solved, expected_all, expected_none (see
        ``entropy_lab.solve_rates``); with ``by="step"`` one per step, with ``step`` after ``epoch``.
    """
    if by not in ("epoch", "step"):
        raise ParameterError("by", f"is {by!r}", '"epoch" or "step"')
    if by == "epoch" and "epoch" not in run.columns:
        raise MissingColumnError("solve_rates", ["epoch"], 'by="step" needs none')
    return _SolveRates(by)


class _SolveRates(Fold):
    def __init__(self, by: str) -> None:
        self.by = by
        self.groups: dict[tuple[float, int], dict[tuple[float, float], int]] = {}

    def add(self, batch: GroupBatch) -> None:
        """Count groups by their numbers of correct and verified rollouts."""
        epochs = np.nan_to_num(batch["epoch"][batch.starts], nan=-1.0)
        base = batch.n_verified.max() + 1
        codes, counts = np.unique(
            (epochs * base + batch.n_verified) * base + batch.n_correct, return_counts=True
        )  # one number a cell: a search over rows took five times as long
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            (epoch, n_verified), n_correct = divmod(code // base, base), code % base
            if n_verified and (self.by == "step" or epoch >= 0):
                row = self.groups.setdefault((epoch, batch.step if self.by == "step" else 0), {})
                row[n_correct, n_verified] = row.get((n_correct, n_verified), 0) + count

    def table(self) -> Table:
        """Give one row per epoch, or per step."""
        keys = sorted(self.groups, key=lambda key: key[::-1] if self.by == "step" else key)
        rates = []
        for key in keys:
            c, n = np.array(list(self.groups[key])).T
            rates.append(solve_rates(c, n, np.array(list(self.groups[key].values()), dtype=float)))
        columns: dict[str, list[float]] = {"epoch": [epoch if epoch >= 0 else float("nan") for epoch, _ in keys]}
        if self.by == "step":
            columns["step"] = [step for _, step in keys]
        for name in ("n_groups", "all_solved", "none_solved", "expected_all", "expected_none"):
            columns[name] = [getattr(rate, name) for rate in rates]
        return Table.of("solve_rates", columns, by=self.by)
