"""What a run's rollouts say of entropy, step by step: the sums that every definition of it is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.batches import GroupBatch
from entropy_lab.entropy_definitions import REDUCTIONS, Lengths, reduced
from entropy_lab.entropy_inference import CLOSE, EXACT, Candidate, Judgement, judge

FloatArray = NDArray[np.float64]

SOURCES: Final[Mapping[str, str]] = {
    "entropy": "full vocabulary",
    "logp": "Monte Carlo",
    "sampler_logp": "Monte Carlo (sampler)",
}
"""Column -> what its mean over tokens estimates entropy by: entropies, or minus log-probabilities of the samples."""
_SAME: Final = 1e-4
_LEAST: Final = 1e-3
_NOISIEST: Final = 0.2


class EntropySums:
    """Sums over the responses of each step.

    Attributes
    ----------
    steps
        The steps taken, in order.
    lowest, highest
        Least and greatest entropy of a response, nats per token; infinite without any.

    Examples
    --------
    >>> columns = {"correct": np.array([1.0, 0.0]), "n_tokens": np.array([1.0, 3.0]), "entropy": np.array([1.0, 2.0])}
    >>> columns |= {"logp": np.array([-0.5, -7.0]), "sampler_logp": np.full(2, np.nan)}
    >>> import polars as pl
    >>> sums = EntropySums()
    >>> sums.add(GroupBatch(0, columns, {"prompt_id": pl.Series(["a", "a"])}, np.array([0])))
    >>> sums.candidates("entropy", None)["token-mean"].item(), sums.candidates("logp", None)["token-sum"].item()
    (1.75, 7.5)
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.lowest, self.highest = np.inf, -np.inf
        self._rows: list[list[float]] = []
        self._n_same = self._n_compared = 0
        self._surplus = self._variance = self._expected = 0.0

    def add(self, batch: GroupBatch) -> None:
        """Take one step's rollouts; those without tokens count for nothing."""
        n = np.where(batch["n_tokens"] > 0, batch["n_tokens"], np.nan)
        counted = ~np.isnan(n)
        if not counted.any():
            return
        n, prompt = n[counted], batch.prompt_codes[batch.group][counted]
        row = [float(len(n)), float(n.sum()), float(n.max())]
        absent = np.full(batch.n_rollouts, np.nan)
        columns = {name: batch.values.get(name, absent)[counted] for name in SOURCES}
        sums = {name: values * (n if name == "entropy" else -1.0) for name, values in columns.items()}
        self.lowest = float(np.fmin.reduce(columns["entropy"], initial=self.lowest))
        self.highest = float(np.fmax.reduce(columns["entropy"], initial=self.highest))
        for values in sums.values():
            row += [float(values.sum()), float((values / n).mean())]
        spread = np.bincount(prompt, sums["logp"] - sums["logp"].sum() / n.sum() * n)
        few = len(spread) / max(len(spread) - 1, 1)
        self._rows.append([*row, float(np.sqrt(few * (spread**2).sum()) / n.sum())])
        self.steps.append(batch.step)
        self._compare(sums["entropy"], sums["logp"], prompt)

    def _compare(self, nats: FloatArray, surprise: FloatArray, prompt: NDArray[np.int64]) -> None:
        both = np.isfinite(nats) & np.isfinite(surprise)
        told = both & (surprise > _LEAST)
        self._n_compared += int(told.sum())
        self._n_same += int((np.abs(nats - surprise)[told] <= _SAME * surprise[told]).sum())
        surplus = np.bincount(prompt, np.where(both, surprise - nats, 0.0))
        self._surplus += float(surplus.sum())
        self._variance += float((surplus**2).sum())
        self._expected += float(nats[both].sum())

    def lengths(self, limit: float | None) -> Lengths:
        """Give the sizes of the steps' batches; ``limit`` is the length limit of responses."""
        rows = self._array()
        return Lengths(rows[:, 0], rows[:, 1], rows[:, 2], limit)

    def candidates(self, source: str, limit: float | None) -> dict[str, FloatArray]:
        """Give what each reduction of a source makes of every step; NaN where a response lacks the column.

        Parameters
        ----------
        source
            A key of `SOURCES`.
        limit
            Length limit of responses in tokens; None when unknown.

        Returns
        -------
        dict
            Reduction -> values, shape (steps,).
        """
        place = 3 + 2 * list(SOURCES).index(source)
        total, mean = self._array()[:, place : place + 2].T
        return {how: reduced(how, total, mean, self.lengths(limit)) for how in REDUCTIONS}

    def judge(self, logged: Mapping[int, float], limit: float | None, expected: str = "") -> tuple[Judgement, int]:
        """Find what a logged series is, by the rollouts of its steps.

        Where it is not exactly what some definition makes of the same step, that of the step before and after is tried,
        too. Without entropies it is held against minus the log-probabilities, which estimate them with noise.

        Parameters
        ----------
        logged
            Step -> value.
        limit
            Length limit of responses in tokens; None when unknown.
        expected
            The definition that the framework declares.

        Returns
        -------
        judgement
            Compared at the steps that have both.
        late
            Steps by which the log is behind the rollouts: 0, 1 or -1.
        """
        candidates = [
            Candidate(how, estimator, values, found["token-mean"])
            for source, estimator in SOURCES.items()
            for found in [self.candidates(source, limit)]
            for how, values in found.items()
        ]
        close = CLOSE
        surprise = self.candidates("logp", limit)["token-mean"]
        if self.steps and not np.isfinite(candidates[0].values).any() and np.isfinite(surprise).any():
            close = float(np.clip(3 * np.nanmedian(self.standard_error / surprise), CLOSE, _NOISIEST))
        judged = {}
        for late in (0, 1, -1):
            series = np.array([logged.get(step + late, np.nan) for step in self.steps])
            judged[late] = judge(series, candidates, close, expected)
        exact = [late for late, one in judged.items() if one.inference.n_steps > 2 and one.inference.error <= EXACT]
        return (judged[exact[0]], exact[0]) if exact else (judged[0], 0)

    @property
    def standard_error(self) -> FloatArray:
        """Standard error of the mean of -log π over each step's tokens, clustered by prompt, shape (steps,)."""
        return self._array()[:, -1]

    @property
    def share_of_copies(self) -> float:
        """Share of responses whose entropy is minus its own log-probability per token; NaN without any."""
        return self._n_same / self._n_compared if self._n_compared else float("nan")

    def surprise(self) -> tuple[float, float]:
        """Compare how surprising the samples were with how surprising their entropies say they would be.

        Each token's -log π has the entropy recorded beside it as its mean, if both are of the distribution that it was
        drawn from.

        Returns
        -------
        ratio
            ``Σ -log π / Σ H`` over all tokens, 1 in expectation; NaN without both.
        z
            The surplus in standard errors, clustered by prompt within steps.
        """
        if not self._expected or not self._variance:
            return float("nan"), float("nan")
        return 1 + self._surplus / self._expected, self._surplus / self._variance**0.5

    def _array(self) -> FloatArray:
        return np.array(self._rows).reshape(len(self._rows), 10)
