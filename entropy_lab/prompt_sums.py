"""Sums by prompt and cell: what a statistic of many cells needs to be resampled over prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.bootstrap import percentile_interval, resampled_sums

FloatArray = NDArray[np.float64]

COMPACT_AT: Final = 200_000
"""Rows kept before those of equal prompt and cell are added up."""
_PROMPT, _ROW, _CELL = "_prompt", "_row", "_cell"


@dataclass
class PromptSums:
    """Sums of some values by prompt and cell; memory grows with prompts times cells, not with steps.

    Parameters
    ----------
    keys
        Columns that name a cell.
    values
        Columns that are added up.

    Examples
    --------
    >>> sums = PromptSums(("accuracy",), ("n",))
    >>> for _ in range(2):
    ...     sums.add(pl.Series(["a", "b"]), {"accuracy": [0.0, 0.5], "n": [1.0, 1.0]})
    >>> sums.cells["accuracy"].to_list(), sums.resampled(1, np.random.default_rng(0))[0]
    ([0.0, 0.5], array([[2., 2.]]))
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    _parts: list[pl.DataFrame] = field(default_factory=list)
    _rows: int = 0

    def add(self, prompts: pl.Series, columns: Mapping[str, Any]) -> None:
        """Add rows.

        Parameters
        ----------
        prompts
            Prompt of each row, shape (rows,).
        columns
            Keys and values, each of shape (rows,); a value that is NaN adds nothing.
        """
        frame = pl.DataFrame({_PROMPT: prompts.cast(pl.String), **{name: columns[name] for name in self._names}})
        self._parts.append(frame)
        self._rows += frame.height
        if self._rows > COMPACT_AT:
            self._parts = [self._sums()]
            self._rows = self._parts[0].height // 2  # a run of many prompts is not added up at every step

    @property
    def _names(self) -> tuple[str, ...]:
        return (*self.keys, *self.values)

    def _sums(self) -> pl.DataFrame:
        if not self._parts:
            return pl.DataFrame(schema=dict.fromkeys((_PROMPT, *self._names), pl.Float64) | {_PROMPT: pl.String})
        totals = [pl.col(name).cast(pl.Float64).fill_nan(0.0).sum() for name in self.values]
        return pl.concat(self._parts).group_by(_PROMPT, *self.keys, maintain_order=True).agg(totals)

    @property
    def prompts(self) -> pl.Series:
        """Prompts met, sorted."""
        return self._sums()[_PROMPT].unique().sort()

    @property
    def cells(self) -> pl.DataFrame:
        """Cells met, sorted by their keys."""
        return self._sums().select(self.keys).unique().sort(self.keys)

    def resampled(self, n_boot: int, rng: np.random.Generator, prompts: pl.Series | None = None) -> FloatArray:
        """Sum over prompts, and over resampled prompts.

        Parameters
        ----------
        n_boot
            Number of resamples.
        rng
            Source of randomness. Equal states and equal ``prompts`` draw alike: sums of several kinds then belong
            together.
        prompts
            Prompts that are resampled, those of this object and perhaps more; default its own.

        Returns
        -------
        numpy.ndarray
            Shape (1 + n_boot, values, cells): first the sums themselves. Of a single prompt all resamples are equal.

        Raises
        ------
        ParameterError
            ``n_boot`` is below 1.
        """
        sums, prompts = self._sums(), self.prompts if prompts is None else prompts
        cells = self.cells.with_row_index(_CELL)
        rows = pl.DataFrame({_PROMPT: prompts}).with_row_index(_ROW)
        at = sums.join(rows, on=_PROMPT).join(cells, on=self.keys, nulls_equal=True)
        table = np.zeros((len(prompts), len(self.values), cells.height))
        table[at[_ROW].to_numpy(), :, at[_CELL].to_numpy()] = at.select(self.values).to_numpy()
        flat = table.reshape(len(prompts), -1)
        both = np.concatenate([flat.sum(axis=0, keepdims=True), resampled_sums(flat, n_boot, rng)])
        return both.reshape(-1, *table.shape[1:])


def bounded(name: str, ends: str, values: FloatArray, confidence: float = 0.95) -> dict[str, FloatArray]:
    """Give an estimate as a column, with its bounds beside it.

    Parameters
    ----------
    name
        Column of the estimate.
    ends
        What the columns of the bounds begin with: ``ends_low`` and ``ends_high``.
    values
        Shape (1 + n_boot, columns): the estimate, then resamples.
    confidence
        Coverage, in (0, 1).

    Returns
    -------
    dict
        Three arrays of shape (columns,). Where all resamples are equal, as of a single prompt, there are no bounds
        (NaN).

    Raises
    ------
    ParameterError
        ``confidence`` is outside (0, 1).

    Examples
    --------
    >>> bounded("y", "ci", np.array([[2.0], [1.0], [3.0]]), 0.5)
    {'y': array([2.]), 'ci_low': array([1.5]), 'ci_high': array([2.5])}
    """
    low, high = percentile_interval(values[1:], confidence)
    known = low < high
    return {name: values[0], f"{ends}_low": np.where(known, low, np.nan), f"{ends}_high": np.where(known, high, np.nan)}
