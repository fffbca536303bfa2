"""Whole groups of one step as arrays: what every analysis of rollouts is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.run import Run, StepFile
from entropy_lab.validation import KEY, numbers

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GroupBatch:
    """The rollouts of one step, sorted by group.

    Parameters
    ----------
    step
        Index of the policy update.
    values
        Column name -> float64 array of shape (rollouts,); null and absent values are NaN, Booleans 0 and 1.
    series
        Columns that are not numbers (texts, lists), in the same order.
    starts
        First row of each group, shape (groups,).

    Examples
    --------
    >>> batch = GroupBatch(0, {"correct": np.array([1.0, 0.0, 1.0])}, {}, np.array([0, 2]))
    >>> batch.accuracy
    array([0.5, 1. ])
    """

    step: int
    values: Mapping[str, FloatArray]
    series: Mapping[str, pl.Series]
    starts: IntArray

    def __getitem__(self, column: str) -> FloatArray:
        return self.values[column]

    @property
    def n_rollouts(self) -> int:
        """Rollouts of the step."""
        return len(next(iter(self.values.values())))

    @property
    def n_groups(self) -> int:
        """Groups of the step."""
        return len(self.starts)

    @cached_property
    def sizes(self) -> IntArray:
        """Rollouts of each group, shape (groups,)."""
        return np.diff(self.starts, append=self.n_rollouts)

    @cached_property
    def group(self) -> IntArray:
        """Position of each rollout's group in ``starts``, shape (rollouts,)."""
        return np.repeat(np.arange(self.n_groups), self.sizes)

    @cached_property
    def prompts(self) -> pl.Series:
        """The prompt of each group, shape (groups,)."""
        return self.series["prompt_id"].gather(self.starts)

    @cached_property
    def prompt_codes(self) -> IntArray:
        """Groups of one prompt share a number from 0, shape (groups,); numbers differ between steps."""
        if self.prompts.n_unique() == self.n_groups:
            return np.arange(self.n_groups)
        codes: IntArray = (self.prompts.rank("dense") - 1).to_numpy().astype(np.int64)
        return codes

    def sum(self, values: FloatArray) -> FloatArray:
        """Sum over each group, shape (groups,); NaN counts as 0."""
        if not self.n_groups:
            return np.zeros(0)
        sums: FloatArray = np.add.reduceat(np.where(np.isnan(values), 0.0, values), self.starts)
        return sums

    @cached_property
    def n_verified(self) -> FloatArray:
        """Rollouts of each group that the verifier judged, shape (groups,)."""
        return self.sum((~np.isnan(self["correct"])).astype(np.float64))

    @cached_property
    def n_correct(self) -> FloatArray:
        """Correct rollouts of each group, shape (groups,)."""
        return self.sum(self["correct"])

    @cached_property
    def accuracy(self) -> FloatArray:
        """Group accuracy p over verified rollouts, in [0, 1], shape (groups,); NaN for a group without any."""
        verified = self.n_verified
        unknown: FloatArray = np.full(len(verified), np.nan)
        return np.divide(self.n_correct, verified, out=unknown, where=verified > 0)


def read_batch(run: Run, file: StepFile, columns: Iterable[str]) -> GroupBatch:
    """Read one step's groups, checked and sorted.

    Parameters
    ----------
    run
        Where the file belongs; its ``skip_invalid`` decides what happens to invalid rows.
    file
        One of ``run.step_files``.
    columns
        Columns wanted beside the key, ``prompt_id`` and ``correct``; those that this file lacks become NaN.

    Returns
    -------
    GroupBatch
        Possibly of no rows.

    Raises
    ------
    RunFormatError
        A row is invalid (not with ``skip_invalid``).
    """
    schema = run.sound_files[file]
    wanted = dict.fromkeys((*KEY, "prompt_id", "correct", *columns))
    present = [name for name in wanted if name in schema]
    frame = _sorted(run.read(file, present))
    if not _samples_rise(frame):
        frame = _sorted(run.without_repeats(file, frame, KEY))
    series = {name: frame[name] for name in present if not (schema[name].is_numeric() or schema[name] == pl.Boolean)}
    series["prompt_id"] = frame["prompt_id"].cast(pl.String)
    values = {name: numbers(frame[name]) for name in present if name not in series}
    values |= {name: np.full(frame.height, np.nan) for name in wanted if name not in present}
    ids = frame["group_id"].to_numpy()
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1])) if len(ids) else np.zeros(0, np.int64)
    return GroupBatch(file.step, values, series, starts)


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    return frame if frame["group_id"].is_sorted() else frame.sort("group_id", maintain_order=True)


def _samples_rise(frame: pl.DataFrame) -> bool:
    """Tell whether samples rise within every group, which proves without a hash table that no key repeats."""
    same_group = np.diff(frame["group_id"].to_numpy()) == 0
    return bool((np.diff(frame["sample"].to_numpy())[same_group] > 0).all())
