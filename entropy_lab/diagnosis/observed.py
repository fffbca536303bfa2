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
from entropy_lab.step_files import StepFile

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
    clock
        Seconds since the run began, by step, where the metrics tell.
    looked_at
        Of files whose tokens were looked at: the number of rows, and how many broke each rule. A run that grows keeps
        it from one look to the next.
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
    clock: Series | None = None
    looked_at: dict[StepFile, tuple[int, Mapping[str, int]]] = field(default_factory=dict)
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
    gather = Gather()
    run_folds(run, [(gather, COLUMNS)])
    observed = put_together(run, gather, run.metrics(), [ValidationPass.of(frame) for frame in run.evals()])
    if not observed.series:
        allowed = "rollouts/step-000000.parquet, … or metrics.jsonl, as docs/run-format.md says"
        raise RunFormatError(str(run.path), "holds nothing to diagnose", allowed, _tables_hint(run.path))
    return observed


def put_together(run: Run, gather: Gather, metrics: pl.DataFrame, passes: Sequence[ValidationPass]) -> Observed:
    """Make the series of a run of what was read from it.

    Parameters
    ----------
    run
        The run.
    gather
        Has taken its rollouts.
    metrics
        Its ``metrics.jsonl``, one row per step.
    passes
        Its validation passes, by step.

    Returns
    -------
    Observed
        As `observe` gives it; without series where nothing was read.
    """
    from_rollouts, from_metrics = gather.series(), metric_series(metrics)
    series = {
        name: max((found[name] for found in (from_rollouts, from_metrics) if name in found), key=len)
        for name in SIGNALS
        if name in from_rollouts or name in from_metrics
    }
    if (validation := _validation(passes)) is not None:
        series["validation"] = validation
    return Observed(run, series, gather.steps, gather.sketches, gather.n_rollouts, _clock(metrics))


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
    rows = _by_step(metrics)
    if rows is None:
        return {}
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


def _by_step(metrics: pl.DataFrame) -> pl.DataFrame | None:
    if "step" not in metrics.columns or not metrics["step"].dtype.is_numeric():
        return None
    return metrics.filter(pl.col("step").is_not_null()).unique("step", keep="last").sort("step")


def _clock(metrics: pl.DataFrame) -> Series | None:
    rows = _by_step(metrics)
    if rows is None or "time" not in rows.columns or not rows["time"].dtype.is_numeric():
        return None
    return Series.of(rows["step"].to_numpy(), rows["time"].cast(pl.Float64).to_numpy(), "metrics: time")


@dataclass(frozen=True)
class ValidationPass:
    """What is kept of a validation pass: mean accuracies, over answers within a benchmark, then over benchmarks.

    Attributes
    ----------
    step
        Update after which it was made; NaN for a pass without answers.
    answers, greedy
        Accuracy of all answers, and of the greedy ones; NaN where none was judged.
    has_greedy
        There are greedy answers.
    """

    step: float
    answers: float
    greedy: float
    has_greedy: bool

    @classmethod
    def of(cls, frame: pl.DataFrame) -> ValidationPass:
        """Condense the verdicts of a pass, as ``Run.evals`` gives them."""
        greedy = frame.filter(pl.col("greedy"))
        step = float(frame["step"][0]) if frame.height else float("nan")
        return cls(step, _accuracy(frame), _accuracy(greedy), greedy.height > 0)


def _accuracy(answers: pl.DataFrame) -> float:
    mean = answers.group_by("benchmark").agg(pl.col("correct").mean())["correct"].mean()
    return float("nan") if mean is None else float(mean)  # type: ignore[arg-type]


def _validation(passes: Sequence[ValidationPass]) -> Series | None:
    """Accuracy of each pass: of the greedy answers, if there are any in the run."""
    greedy = any(one.has_greedy for one in passes)
    values = [one.greedy if greedy else one.answers for one in passes]
    series = Series.of([one.step for one in passes], values, "evals: correct" + (", greedy" if greedy else ""))
    return series if len(series) else None
