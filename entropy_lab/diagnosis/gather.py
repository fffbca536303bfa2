"""The pass over the rollouts: a handful of numbers per step, and a sketch of which groups a step held."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.batches import GroupBatch
from entropy_lab.diagnosis.measures import MEASURES, Step
from entropy_lab.diagnosis.series import Series
from entropy_lab.diagnosis.signals import SIGNALS
from entropy_lab.fold import Fold
from entropy_lab.table import Table

UintArray = NDArray[np.uint64]

COLUMNS: Final = tuple(dict.fromkeys(column for name in MEASURES for column in SIGNALS[name].columns))
"""What the pass reads, where a run has it."""
SKETCH: Final = 64
"""Groups of a step that are remembered by a number: those with the smallest."""
_ODD_1, _ODD_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_SHIFT_1, _SHIFT_2 = np.uint64(29), np.uint64(32)


class Gather(Fold):
    """Collects the series of a run, and a sketch of each step's groups; its table is empty."""

    def __init__(self, present: frozenset[str]) -> None:
        self.present = present
        self.steps: list[float] = []
        self.sketches: list[UintArray] = []
        self.n_rollouts = 0
        self.values: dict[str, list[float]] = {name: [] for name in MEASURES if set(SIGNALS[name].columns) <= present}

    def add(self, batch: GroupBatch) -> None:
        """Take one step's groups."""
        step = Step(batch)
        self.steps.append(float(batch.step))
        self.n_rollouts += batch.n_rollouts
        for name, values in self.values.items():
            values.append(MEASURES[name](step))
        self.sketches.append(sketch(batch, self.present))

    def series(self) -> dict[str, Series]:
        """Give the series that have a value at any step."""
        made = {
            name: Series.of(self.steps, values, "rollouts: " + ", ".join(SIGNALS[name].columns))
            for name, values in self.values.items()
        }
        return {name: series for name, series in made.items() if len(series)}

    def table(self) -> Table:
        """Give an empty table: a diagnosis is none."""
        return Table.of("diagnosis", {})


def sketch(batch: GroupBatch, columns: frozenset[str]) -> UintArray:
    """Smallest hashes of a step's groups, of what tells rollouts apart: log-probabilities and entropies.

    Groups whose rollouts are all alike are left out: a policy without entropy repeats itself rightly.

    Parameters
    ----------
    batch
        A step's groups.
    columns
        Columns that the run has.

    Returns
    -------
    numpy.ndarray
        Shape (at most `SKETCH`,), rising; empty without ``logp``, ``sampler_logp`` and ``entropy``.

    References
    ----------
    Broder (1997), "On the resemblance and containment of documents" (bottom-k sketches).

    Examples
    --------
    >>> values = {"logp": np.array([-1.0, -2.0, -3.0, -3.0])}
    >>> len(sketch(GroupBatch(0, values, {}, np.array([0, 2])), frozenset(["logp"])))
    1
    """
    names = [name for name in ("logp", "sampler_logp", "entropy") if name in columns]
    if not names or not batch.n_groups:
        return np.zeros(0, np.uint64)
    rollouts = np.zeros(batch.n_rollouts, np.uint64)
    for name in names:
        rollouts = (rollouts ^ np.ascontiguousarray(batch[name]).view(np.uint64)) * _ODD_1
        rollouts ^= rollouts >> _SHIFT_1
    rollouts *= _ODD_2
    rollouts ^= rollouts >> _SHIFT_2
    low, high = (ufunc.reduceat(rollouts, batch.starts) for ufunc in (np.minimum, np.maximum))
    # The sum does not depend on the order of the rollouts.
    groups = np.add.reduceat(rollouts, batch.starts)[low != high]
    return np.sort(np.partition(groups, SKETCH)[:SKETCH] if len(groups) > SKETCH else groups)
