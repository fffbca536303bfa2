"""The pass over the rollouts: a handful of numbers per step, and a sketch of which groups a step held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.batches import GroupBatch
from entropy_lab.diagnosis.measures import MEASURES, NAN, Step
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


@dataclass(frozen=True)
class StepNumbers:
    """What is kept of a step: the measures that exist, a sketch of its groups, and how many rollouts it had."""

    values: Mapping[str, float]
    sketch: UintArray
    n_rollouts: int


class Gather(Fold):
    """Collects a few numbers of each step, and a sketch of its groups; its table is empty.

    Steps may come in any order, and a step that comes again replaces what was kept of it: what is kept of one does
    not depend on the others, so that a run which is still growing is read as one that is whole.
    """

    def __init__(self) -> None:
        self._kept: dict[int, StepNumbers] = {}

    def add(self, batch: GroupBatch) -> None:
        """Take one step's groups."""
        step = Step(batch)
        known = {name for name, column in batch.values.items() if not np.isnan(column).all()}
        values = {name: measure(step) for name, measure in MEASURES.items() if known.issuperset(SIGNALS[name].columns)}
        self._kept[batch.step] = StepNumbers(values, sketch(batch), batch.n_rollouts)

    def forget(self, step: int) -> None:
        """Drop what was kept of a step, if anything."""
        self._kept.pop(step, None)

    @property
    def steps(self) -> list[float]:
        """Steps that have rollouts, rising."""
        return [float(step) for step in sorted(self._kept)]

    @property
    def sketches(self) -> list[UintArray]:
        """The sketch of each of `steps`."""
        return [self._kept[step].sketch for step in sorted(self._kept)]

    @property
    def n_rollouts(self) -> int:
        """Rollouts of all steps."""
        return sum(kept.n_rollouts for kept in self._kept.values())

    def series(self) -> dict[str, Series]:
        """Give the series that have a value at any step."""
        steps, kept = self.steps, [self._kept[step] for step in sorted(self._kept)]
        made = {
            name: Series.of(
                steps, [one.values.get(name, NAN) for one in kept], "rollouts: " + ", ".join(SIGNALS[name].columns)
            )
            for name in MEASURES
        }
        return {name: series for name, series in made.items() if len(series)}

    def table(self) -> Table:
        """Give an empty table: a diagnosis is none."""
        return Table.of("diagnosis", {})


def sketch(batch: GroupBatch) -> UintArray:
    """Smallest hashes of a step's groups, of what tells rollouts apart: log-probabilities and entropies.

    Groups whose rollouts are all alike are left out: a policy without entropy repeats itself rightly.

    Parameters
    ----------
    batch
        A step's groups.

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
    >>> len(sketch(GroupBatch(0, values, {}, np.array([0, 2]))))
    1
    """
    names = [name for name in ("logp", "sampler_logp", "entropy") if name in batch.values]
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
