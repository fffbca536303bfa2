"""How a mean over the tokens of a step changes to the next one, whose prompts are mostly others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.bootstrap import percentile_interval, resample_counts

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """What the ratio of sums did from one step to the next.

    Parameters
    ----------
    value
        Ratio of the next step minus that of the step.
    low, high
        Bootstrap interval over prompts; NaN where one of the steps has a single prompt.
    variance
        Variance of the resampled changes: what sampling alone makes of no change.
    """

    value: float
    low: float
    high: float
    variance: float


@dataclass
class StepChanges:
    """Ratios of sums by step, as entropy per token, and their changes.

    Prompts are resampled, those of both steps together: a prompt that is in both moves both.

    Parameters
    ----------
    n_boot, confidence, seed
        Resamples, coverage and seed of the intervals.

    Attributes
    ----------
    ratios
        Step -> ratio.
    changes
        Step -> change to the next step, where that is ``step + 1``.

    Examples
    --------
    >>> changes = StepChanges(n_boot=100)
    >>> for step, nats in enumerate([[4.0, 6.0], [3.0, 5.0]]):
    ...     changes.add(step, pl.Series(["a", "b"]), np.array(nats), np.array([5.0, 5.0]))
    >>> changes.ratios[0], round(changes.changes[0].value, 3), round(changes.changes[0].high, 3)
    (1.0, -0.2, -0.2)
    """

    n_boot: int = 1000
    confidence: float = 0.95
    seed: int = 0
    ratios: dict[int, float] = field(default_factory=dict)
    changes: dict[int, Change] = field(default_factory=dict)
    _last: tuple[int, pl.Series, FloatArray, FloatArray] | None = None
    _counts: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, step: int, prompts: pl.Series, above: FloatArray, below: FloatArray) -> None:
        """Take the next step.

        Parameters
        ----------
        step
            Greater than those before.
        prompts
            Prompt of each row (a prompt may have several), shape (rows,).
        above, below
            Sums of each row, such as nats and tokens, shape (rows,); rows with nothing below are left out.
        """
        kept = below > 0
        here = (step, prompts.filter(pl.Series(kept)), above[kept], below[kept])
        if not kept.any():
            return
        self.ratios[step] = float(here[2].sum() / here[3].sum())
        if self._last is not None and self._last[0] == step - 1:
            self.changes[step - 1] = self._change(self._last, here)
        self._last = here

    def frame(self) -> pl.DataFrame:
        """Give the changes: columns step (Int32), measured, ci_low, ci_high; NaN is null."""
        rows = [(step, one.value, one.low, one.high) for step, one in self.changes.items()]
        types = {"step": pl.Int32, **dict.fromkeys(("measured", "ci_low", "ci_high"), pl.Float64)}
        return pl.DataFrame(rows, types, orient="row").fill_nan(None)

    @property
    def noise(self) -> float | None:
        """Share of the mean square of the changes that sampling makes; it may pass 1. None without an interval."""
        known = [one for one in self.changes.values() if np.isfinite(one.variance)]
        square = sum(one.value**2 for one in known)
        return sum(one.variance for one in known) / square if square else None

    def _change(
        self, old: tuple[int, pl.Series, FloatArray, FloatArray], new: tuple[int, pl.Series, FloatArray, FloatArray]
    ) -> Change:
        value = self.ratios[new[0]] - self.ratios[old[0]]
        if min(old[1].n_unique(), new[1].n_unique()) < 2:
            return Change(value, *[float("nan")] * 3)
        codes = (pl.concat([old[1], new[1]]).rank("dense") - 1).to_numpy().astype(np.int64)
        n, split = int(codes.max()) + 1, len(old[1])
        cells = [np.bincount(codes[:split], part, n) for part in old[2:]]
        cells += [np.bincount(codes[split:], part, n) for part in new[2:]]
        if self._counts.shape[1] != n:
            # One draw for all steps of as many prompts: a step's interval does not depend on the others.
            self._counts = resample_counts(n, self.n_boot, np.random.default_rng([self.seed, n]))
        sums = self._counts @ np.column_stack(cells)
        # A resample without a prompt of one of the steps has no change.
        sums = sums[(sums[:, [1, 3]] > 0).all(axis=1)]
        if not len(sums):
            return Change(value, *[float("nan")] * 3)
        drawn = sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1]
        low, high = percentile_interval(drawn, self.confidence)
        return Change(value, float(low), float(high), float(drawn.var()))
