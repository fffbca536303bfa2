"""A quantity over the steps of a run, with what it was computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """Values of one quantity at the steps that have it.

    Parameters
    ----------
    steps, values
        Shape (n,), by step, without NaN.
    source
        What was read: ``"rollouts: entropy, n_tokens"``, ``"metrics: actor/entropy"``, ``"evals: correct"``.

    Examples
    --------
    >>> series = Series.of([0, 1, 2], [0.5, float("nan"), 0.3], "metrics: entropy")
    >>> len(series), series.values.tolist()
    (2, [0.5, 0.3])
    """

    steps: FloatArray
    values: FloatArray
    source: str

    @classmethod
    def of(cls, steps: Sequence[float] | FloatArray, values: Sequence[float] | FloatArray, source: str) -> Series:
        """Make a series of values of which some may be NaN; those are left out."""
        t, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        kept = np.isfinite(y)
        return cls(t[kept], y[kept], source)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def ends(self) -> tuple[float, float]:
        """First and last step; the series must not be empty."""
        return float(self.steps[0]), float(self.steps[-1])

    def between(self, first: float, last: float = math.inf) -> Series:
        """Give the part from step ``first`` to step ``last``, both included.

        Examples
        --------
        >>> len(Series.of([0, 1, 2], [1.0, 2.0, 3.0], "").between(1))
        2
        """
        return self.where((self.steps >= first) & (self.steps <= last))

    def where(self, kept: NDArray[Any]) -> Series:
        """Give the part at a mask or at positions."""
        return Series(self.steps[kept], self.values[kept], self.source)
