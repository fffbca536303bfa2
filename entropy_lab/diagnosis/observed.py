"""What a check sees of a run: series by name, with a record of what it looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.diagnosis.frameworks import OURS, metric_names
from entropy_lab.diagnosis.gather import COLUMNS, Gather
from entropy_lab.diagnosis.series import Series
from entropy_lab.diagnosis.signals import SIGNALS
from entropy_lab.errors import RunFormatError
from entropy_lab.fold import run_folds
from entropy_lab.run import Run

UintArray = NDArray[np.uint64]


@dataclass
class Observed:
    """The series of a run, and what else checks ask for.

    Attributes
    ----------
    run
        The run, for what no series says.
    series
        Name of a signal -> its series.
    rollout_steps, sketches
        Steps that have rollouts, and for each the sketch of its groups.
    n_rollouts
        Rollouts read.
    baseline
        A run known to be healthy.
    used
        Sources that were asked for since `fresh`.
    """

    run: Run
    series: Mapping[str, Series]
    rollout_steps: Sequence[float] = ()
    sketches: Sequence[UintArray] = ()
    n_rollouts: int = 0
    baseline: Observed | None = None
    used: list[str] = field(default_factory=list)

    def fresh(self, baseline: Observed | None = None) -> Observed:
        """Give the same with an empty record of what was used."""
        return replace(self, baseline=baseline, used=[])

    def get(self, *names: str) -> Series | None:
        """Give the first of some series that the run has, and note that it was used."""
        for name in names:
            if name in self.series:
                self.note(self.series[name].source)
                return self.series[name]
        return None

    def need(self, *names: str) -> Series:
        """Give the first of some series of which the run is known to have one."""
        found = self.get(*names)
        if found is None:
            raise KeyError(names)
        return found

    def note(self, source: str) -> None:
        """Note that something was read."""
        if source not in self.used:
            self.used.append(source)

    @property
    def framework(self) -> str:
        """What the run came from: ``"trl"``, …, ``"entropy-lab"``."""
        imported = self.run.info.get("imported")
        return str(imported.get("format", OURS)) if isinstance(imported, Mapping) else OURS

    @property
    def how_to_record(self) -> Mapping[str, Any]:
        """Column -> how the framework records it, where the importer knew."""
        imported = self.run.info.get("imported")
        known = imported.get("how_to_record") if isinstance(imported, Mapping) else None
        return known if isinstance(known, Mapping) else {}

    @property
    def steps(self) -> tuple[float, float] | None:
        """First and last step that anything is known of."""
        ends = [step for one in self.series.values() for step in (one.steps[0], one.steps[-1])]
        return (float(min(ends)), float(max(ends))) if ends else None

    def rng(self) -> np.random.Generator:
        """Give a source of randomness that is the same at every call: a diagnosis does not depend on its order."""
        return np.random.default_rng(0)


def observe(run: Run) -> Observed:
    """Read everything that checks look at: the metrics, the validation passes, and the rollouts once.

    Parameters
    ----------
    run
        The run.

    Returns
    -------
    Observed
        Where rollouts and metrics both have a quantity, the one with more steps counts, the rollouts if equal.

    Raises
    ------
    RunFormatError
        A file is invalid (not with ``run.skip_invalid``), or there is nothing at all to look at.
    """
    gather = Gather(run.columns)
    run_folds(run, [(gather, COLUMNS)])
    from_rollouts, from_metrics = gather.series(), metric_series(run.metrics())
    series = {
        name: max((found[name] for found in (from_rollouts, from_metrics) if name in found), key=len)
        for name in SIGNALS
        if name in from_rollouts or name in from_metrics
    }
    if (validation := _validation(run)) is not None:
        series["validation"] = validation
    if not series:
        allowed = "rollouts/step-000000.parquet, … or metrics.jsonl, as docs/run-format.md says"
        raise RunFormatError(str(run.path), "holds nothing to diagnose", allowed, _tables_hint(run.path))
    return Observed(run, series, gather.steps, gather.sketches, gather.n_rollouts)


def _tables_hint(path: Path) -> str:
    # Runs of a study keep their tables only.
    kept = (path / "analysis").is_dir()
    return "entropy-lab study … --keep rollouts keeps what a diagnosis reads" if kept else ""


def metric_series(metrics: pl.DataFrame) -> dict[str, Series]:
    """Find the signals among the columns of ``metrics.jsonl``, under our names or another framework's.

    Parameters
    ----------
    metrics
        One row per step; rows without a ``step`` are left out.

    Returns
    -------
    dict
        Signal -> series, of those with a finite number at any step.

    Examples
    --------
    >>> rows = pl.DataFrame({"step": [0, 1], "entropy": [0.5, None], "frac_reward_zero_std": [0.1, 0.2]})
    >>> found = metric_series(rows)
    >>> {name: (len(series), series.source) for name, series in found.items()}
    {'entropy': (1, 'metrics: entropy'), 'zero_signal': (2, 'metrics: frac_reward_zero_std')}
    """
    if "step" not in metrics.columns or not metrics["step"].dtype.is_numeric():
        return {}
    rows = metrics.filter(pl.col("step").is_not_null()).unique("step", keep="last").sort("step")
    found: dict[str, Series] = {}
    for name, signal in SIGNALS.items():
        for keys in (signal.metrics, *((alias,) for alias in metric_names(name))):
            if keys and set(keys) <= set(rows.columns) and all(rows[key].dtype.is_numeric() for key in keys):
                total = np.sum([rows[key].cast(pl.Float64).to_numpy() for key in keys], axis=0)
                series = Series.of(rows["step"].to_numpy(), total, "metrics: " + ", ".join(keys))
                if len(series):
                    found[name] = series
                    break
    return found


def _validation(run: Run) -> Series | None:
    """Mean accuracy of each validation pass: over answers within a benchmark, then over benchmarks; greedy if any."""
    passes = [frame for frame in run.evals() if frame.height]
    if not passes:
        return None
    greedy = any((frame["greedy"] == True).any() for frame in passes)  # noqa: E712 - null is neither
    steps, values = [], []
    for frame in passes:
        kept = frame.filter(pl.col("greedy")) if greedy else frame
        means = kept.group_by("benchmark").agg(pl.col("correct").mean())
        steps.append(float(frame["step"][0]))
        values.append(float(value) if (value := means["correct"].mean()) is not None else float("nan"))  # type: ignore[arg-type]
    series = Series.of(steps, values, "evals: correct" + (", greedy" if greedy else ""))
    return series if len(series) else None
