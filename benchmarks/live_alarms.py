"""How often a monitor alarms during healthy runs, and how late it names a planted cause: tables of docs/watching.md.

``python -m benchmarks.live_alarms`` simulates the runs of `planted_causes` with seeds that nobody looked at, judges
each of them after every step, as `el.Monitor` does, and counts what is told for several values of ``confirm``: some
ten minutes on one core. The table of the healthy runs is printed first, then a line for each cause.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from benchmarks.planted_causes import CAUSES, Cause, world_of
from benchmarks.tabular_policy import simulate
from entropy_lab.diagnosis.diagnose import judged
from entropy_lab.diagnosis.finding import NOTE, Finding
from entropy_lab.diagnosis.observed import Observed, metric_series, observe
from entropy_lab.monitoring.standing import Standing
from entropy_lab.run import Run, open_run

CONFIRM = (0, 5, 10, 20)
"""Values of ``confirm`` that are compared."""

Looks = list[tuple[Finding, ...]]
"""What the diagnosis after each step finds."""


def until(observed: Observed, last: float) -> Observed:
    """Give what is known of a run after a step."""
    run = Run(observed.run.path)
    run.step_files = tuple(file for file in observed.run.step_files if file.step <= last)
    run.sound_files = {file: observed.run.sound_files[file] for file in run.step_files}
    series = {name: part for name, one in observed.series.items() if len(part := one.between(-np.inf, last))}
    n = sum(step <= last for step in observed.rollout_steps)
    return replace(
        observed, run=run, series=series, rollout_steps=observed.rollout_steps[:n], sketches=observed.sketches[:n]
    )


def scalars_alone(observed: Observed) -> Observed:
    """Give what is known of a run without its rollouts."""
    run = Run(observed.run.path)
    run.step_files, run.sound_files = (), {}
    series = metric_series(run.metrics()) | {k: one for k, one in observed.series.items() if k == "validation"}
    return Observed(run, series)


def looks(observed: Observed, steps: int) -> Looks:
    """Diagnose after each step."""
    return [judged(until(observed, step)).findings for step in range(steps)]


def told(seen: Looks, confirm: int) -> dict[str, int]:
    """Tell at which step each finding is told first, notes left out."""
    standing, first = Standing(confirm), dict[str, int]()
    for step, findings in enumerate(seen):
        for finding in standing.see(findings, step + 1):
            if finding.severity != NOTE:
                first.setdefault(finding.name, step)
    return first


@dataclass
class Watched:
    """A simulated run: when its cause began, and what each look found, by rollouts and by scalars alone."""

    since: int
    steps: int
    whole: Looks
    scalars: Looks


def watch(cause: Cause, seed: int) -> Watched:
    """Simulate a run and look at it after every step."""
    world = world_of(cause, seed)
    with tempfile.TemporaryDirectory() as folder:
        observed = observe(open_run(simulate(world, Path(folder) / "run")))
        kinds = (looks(one, world.steps) for one in (observed, scalars_alone(observed)))
        return Watched(world.since, world.steps, *kinds)


def false_alarms(runs: Sequence[Watched]) -> str:
    """Tabulate the healthy runs in which anything was told, by ``confirm``."""
    lines = ["| confirm | alarmed, with rollouts | by scalars | told |", "|---|---|---|---|"]
    for confirm in CONFIRM:
        whole, scalars = ([told(kind, confirm) for kind in kinds] for kinds in _both(runs))
        names = ", ".join(sorted({name for one in (*whole, *scalars) for name in one})) or "–"
        n = len(runs)
        lines.append(f"| {confirm} | {sum(map(bool, whole))} of {n} | {sum(map(bool, scalars))} of {n} | {names} |")
    n_looks = sum(one.steps for one in runs)
    alarmed = sum(any(f.severity != NOTE for f in findings) for one in runs for findings in one.whole)
    return "\n".join([*lines, f"\n{n_looks:,} looks, {alarmed} with a finding"])


def _both(runs: Sequence[Watched]) -> tuple[list[Looks], list[Looks]]:
    return [one.whole for one in runs], [one.scalars for one in runs]


def delay(cause: Cause, runs: Sequence[Watched]) -> str:
    """Give a line: in how many runs a cause is named, and how many steps after it began, by ``confirm``."""
    cells = []
    for confirm in CONFIRM:
        first = [(told(one.whole, confirm).get(str(cause.finding)), one.since) for one in runs]
        late = [step - since for step, since in first if step is not None]
        cells.append(f"{len(late)} of {len(runs)}" + (f", {np.median(late):.0f}" if late else ""))
    return f"| {cause.name} | `{cause.finding}` | " + " | ".join(cells) + " |"


@dataclass
class Settings:
    """What to run."""

    healthy: int = 40
    """Healthy runs."""
    planted: int = 4
    """Runs of each cause."""
    first: int = 1000
    """First seed; those below 80 were looked at while ``confirm`` was chosen."""


def main(settings: Settings) -> None:
    """Run, and print the tables."""
    seeds = range(settings.first, settings.first + settings.healthy)
    if settings.healthy:
        print(false_alarms([watch(CAUSES[0], seed) for seed in seeds]), "\n", flush=True)
    print("| planted | finding | " + " | ".join(f"confirm {confirm}" for confirm in CONFIRM) + " |")
    print("|---" * (2 + len(CONFIRM)) + "|")
    for cause in CAUSES:
        if cause.finding is not None and settings.planted:
            runs = [watch(cause, seed) for seed in range(settings.first, settings.first + settings.planted)]
            print(delay(cause, runs), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
