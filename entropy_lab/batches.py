"""Whole groups of one step as arrays: what every analysis of rollouts is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.run import Run
from entropy_lab.schema import ROLLOUTS
from entropy_lab.step_files import UNREADABLE, StepFile
from entropy_lab.validation import KEY, numbers, row_breaches

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

    def sum(self, values: FloatArray, kept: NDArray[np.bool_] | None = None) -> FloatArray:
        """Sum over each group the values kept (default those that are not NaN), shape (groups,)."""
        if not self.n_groups:
            return np.zeros(0)
        sums: FloatArray = np.add.reduceat(
            np.where(~np.isnan(values) if kept is None else kept, values, 0.0), self.starts
        )
        return sums

    def count(self, kept: NDArray[np.bool_]) -> FloatArray:
        """Count the rollouts kept of each group, shape (groups,)."""
        return self.sum(kept.astype(np.float64), kept)

    @cached_property
    def n_verified(self) -> FloatArray:
        """Rollouts of each group that the verifier judged, shape (groups,)."""
        return self.count(~np.isnan(self["correct"]))

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


def read_batches(run: Run, files: Sequence[StepFile], columns: Iterable[str]) -> Iterator[GroupBatch]:
    """Read the groups of some steps, checked and sorted.

    Sound files of the same columns are read and checked together, which takes a third of the time; anything unusual
    (another type, unsorted rows, a broken rule) sends them one by one through the checks that name file and row.

    Parameters
    ----------
    run
        Where the files belong; its ``skip_invalid`` decides what happens to invalid rows.
    files
        Some of ``run.sound_files``, by step.
    columns
        Columns wanted beside the key, ``prompt_id`` and ``correct``; those that a file lacks become NaN.

    Yields
    ------
    GroupBatch
        One per file, possibly of no rows.

    Raises
    ------
    RunFormatError
        A row is invalid (not with ``skip_invalid``).
    """
    shown = tuple(dict.fromkeys(("correct", *columns)))
    wanted = tuple(dict.fromkeys((*KEY, "prompt_id", *shown)))
    together = _read_together(run, files, wanted)
    for file in files if together is None else ():
        frame = _read_alone(run, file, wanted)
        yield from _split(frame, shown) if frame.height else [_nothing(file, shown)]
    if together is not None:
        yield from _split(together, shown)


def _read_together(run: Run, files: Sequence[StepFile], wanted: Sequence[str]) -> pl.DataFrame | None:
    """Read files whose rows keep every rule and stand in order; None when any does not."""
    schemas = [{name: run.sound_files[file].get(name) for name in wanted} for file in files]
    if any(schema != schemas[0] for schema in schemas[1:]):
        return None
    present = [name for name, dtype in schemas[0].items() if dtype is not None]
    try:
        scan = pl.scan_parquet([file.path for file in files], glob=False, extra_columns="ignore")
        frame = scan.select(present).collect()
    except UNREADABLE:
        return None
    steps = frame["step"].to_numpy()
    in_place = steps[_changes(steps)].tolist() == [file.step for file in files]
    if not in_place or any(row_breaches(frame, ROLLOUTS)) or not _rises(frame):
        return None
    return frame


def _read_alone(run: Run, file: StepFile, wanted: Sequence[str]) -> pl.DataFrame:
    """Read one file's valid rows, sorted by group and without repeats."""
    schema = run.sound_files[file]
    frame = run.read(file, [name for name in wanted if name in schema]).sort("group_id", maintain_order=True)
    if not _rises(frame):
        frame = run.without_repeats(file, frame, KEY)
    return frame


def _rises(frame: pl.DataFrame) -> bool:
    """Tell whether groups rise within every step, and samples within every group: then no key repeats."""
    columns = [frame[name].to_numpy() for name in KEY]
    # Comparisons, not differences: those of unsigned integers never fall below zero.
    (new_step, _), (new_group, group_up), (_, sample_up) = ((x[1:] != x[:-1], x[1:] > x[:-1]) for x in columns)
    return bool((new_step | ~new_group | group_up).all() and (new_step | new_group | sample_up).all())


def _changes(values: NDArray[Any]) -> IntArray:
    """First position of each run of equal values."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1])) if len(values) else np.zeros(0, np.int64)


def _split(frame: pl.DataFrame, shown: Sequence[str]) -> Iterator[GroupBatch]:
    """Cut sorted rows of some steps into one batch a step; the arrays are views."""
    given = [name for name in shown if name in frame.columns]
    series = {name: frame[name] for name in given if not _is_number(frame[name])}
    series["prompt_id"] = frame["prompt_id"].cast(pl.String)
    values = {name: numbers(frame[name]) for name in given if name not in series}
    values |= {name: np.full(frame.height, np.nan) for name in shown if name not in frame.columns}
    steps, groups = frame["step"].to_numpy(), frame["group_id"].to_numpy()
    firsts = _changes(steps)
    starts = np.union1d(firsts, _changes(groups))
    for first, end in zip(firsts, np.append(firsts[1:], frame.height), strict=True):
        yield GroupBatch(
            int(steps[first]),
            {name: array[first:end] for name, array in values.items()},
            {name: one[first:end] for name, one in series.items()},
            starts[(starts >= first) & (starts < end)] - first,
        )


def _is_number(series: pl.Series) -> bool:
    return series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)


def _nothing(file: StepFile, shown: Sequence[str]) -> GroupBatch:
    return GroupBatch(file.step, {name: np.zeros(0) for name in shown}, {}, np.zeros(0, np.int64))
