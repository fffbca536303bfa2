"""How a mean over the tokens of a step changes to the next one, whose prompts are mostly others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.bootstrap import TOGETHER, Draws, percentile_interval

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
    _changes: dict[int, Change] = field(default_factory=dict)
    _last: tuple[int, pl.Series, FloatArray, FloatArray] | None = None
    _waiting: dict[int, FloatArray] = field(default_factory=dict)
    _draws: Draws = field(init=False)

    def __post_init__(self) -> None:
        self._draws = Draws(self.n_boot, self.seed)

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
            self._compare(self._last, here)
        self._last = here

    @property
    def changes(self) -> dict[int, Change]:
        """Step -> change to the next step, where that is ``step + 1``."""
        self._settle()
        return self._changes

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

    def _compare(
        self, old: tuple[int, pl.Series, FloatArray, FloatArray], new: tuple[int, pl.Series, FloatArray, FloatArray]
    ) -> None:
        """Take the sums of both steps by prompt; their resamples are made together with those of other steps."""
        value = self.ratios[new[0]] - self.ratios[old[0]]
        self._changes[old[0]] = Change(value, *[float("nan")] * 3)
        if min(old[1].n_unique(), new[1].n_unique()) < 2:
            return
        codes = (pl.concat([old[1], new[1]]).rank("dense") - 1).to_numpy().astype(np.int64)
        n, split = int(codes.max()) + 1, len(old[1])
        cells = [np.bincount(codes[:split], part, n) for part in old[2:]]
        cells += [np.bincount(codes[split:], part, n) for part in new[2:]]
        waiting = next(iter(self._waiting.values()), None)
        if waiting is not None and (len(waiting) != n or len(self._waiting) == TOGETHER):
            self._settle()
        self._waiting[old[0]] = np.column_stack(cells)

    def _settle(self) -> None:
        """Resample the steps that wait: one product of matrices for all of them."""
        if not self._waiting:
            return
        cells = np.concatenate(list(self._waiting.values()), axis=1)
        sums = np.split(self._draws.counts(len(cells)) @ cells, len(self._waiting), axis=1)
        for step, drawn in zip(self._waiting, sums, strict=True):
            # A resample without a prompt of one of the steps has no change.
            kept = drawn[(drawn[:, [1, 3]] > 0).all(axis=1)]
            if len(kept):
                change = kept[:, 2] / kept[:, 3] - kept[:, 0] / kept[:, 1]
                low, high = percentile_interval(change, self.confidence)
                self._changes[step] = replace(
                    self._changes[step], low=float(low), high=float(high), variance=float(change.var())
                )
        self._waiting = {}
