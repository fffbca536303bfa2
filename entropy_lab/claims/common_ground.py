"""What makes runs of a setting comparable: the same length, benchmarks, validation passes and k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from entropy_lab.plots.series import RunTables

LAST_PASSES: Final = 3
"""Validation passes that the accuracy of a run averages over."""
_STEPPED: Final = ("entropy", "likelihood", "training", "validation")


@dataclass(frozen=True)
class CommonGround:
    """What the runs of a setting are compared on.

    Parameters
    ----------
    benchmarks
        All of them.
    passes
        Steps of the last greedy validation passes, at most `LAST_PASSES`.
    sampled
        Step of the last pass with sampled answers; None without.
    k
        Largest k for which every run with sampled answers there has pass@k; None without.
    """

    benchmarks: tuple[str, ...]
    passes: tuple[int, ...]
    sampled: int | None
    k: int | None


def last_step(run: RunTables) -> int | None:
    """Find the last policy update that a run's tables know of.

    Parameters
    ----------
    run
        The run.

    Returns
    -------
    int or None
        None when no table has a column ``step``.

    Examples
    --------
    >>> from entropy_lab.table import Table
    >>> tables = {"entropy": Table.of("entropy", {"step": [0, 1], "entropy": [0.5, 0.4]})}
    >>> last_step(RunTables("GRPO", "grpo", {}, 0, 8, tables))
    1
    """
    frames = [run.tables[name].frame for name in _STEPPED if name in run.tables]
    stepped = [frame["step"] for frame in frames if len(frame) and "step" in frame.columns]
    return max((int(str(steps.max())) for steps in stepped), default=None)


def whole_runs(runs: Sequence[RunTables]) -> tuple[list[RunTables], list[str]]:
    """Leave out runs of another length than most, which would compare early training with late.

    Parameters
    ----------
    runs
        Runs of one setting.

    Returns
    -------
    kept : list of RunTables
        Those whose last step is the most common one (the later of equals).
    left_out : list of str
        What was left out and why.

    Examples
    --------
    >>> from entropy_lab.table import Table
    >>> def ending(step):
    ...     tables = {"entropy": Table.of("entropy", {"step": [step], "entropy": [0.5]})}
    ...     return RunTables("GRPO", "grpo", {}, step, 8, tables)
    >>> whole_runs([ending(9), ending(9), ending(3)])[1]
    ['GRPO, seed 3: ends at step 3, most runs at 9']
    """
    steps = [last_step(run) for run in runs]
    counts = Counter(step for step in steps if step is not None)
    usual = max(counts, key=lambda step: (counts[step], step), default=None)
    kept = [run for run, step in zip(runs, steps, strict=True) if step == usual]
    left_out = [
        f"{run.label}, seed {run.seed}: ends at step {step}, most runs at {usual}"
        for run, step in zip(runs, steps, strict=True)
        if step != usual
    ]
    return kept, left_out


def common_ground(runs: Sequence[RunTables]) -> CommonGround:
    """Find what the runs of a setting are compared on.

    Parameters
    ----------
    runs
        Runs of one setting, of the same length.

    Returns
    -------
    CommonGround
        Empty where no run has validation passes.
    """
    frames = [run.tables["validation"].frame for run in runs if "validation" in run.tables]
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return CommonGround((), (), None, None)
    rows = pl.concat([frame.select("step", "benchmark", "greedy") for frame in frames])
    greedy = rows.filter(pl.col("greedy"))["step"].unique().sort().to_list()
    sampled = rows.filter(~pl.col("greedy"))["step"].max()
    benchmarks = tuple(rows["benchmark"].unique().sort().to_list())
    at_last = [frame.filter(~pl.col("greedy") & (pl.col("step") == sampled)) for frame in frames]
    counts = [int(str(frame["k"].min())) for frame in at_last if len(frame)]
    k = 1 << (min(counts).bit_length() - 1) if counts and min(counts) > 0 else None
    return CommonGround(benchmarks, tuple(greedy[-LAST_PASSES:]), None if sampled is None else int(str(sampled)), k)
