"""``entropy-lab study``: make every run of a study, however often it is stopped."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Listing

from entropy_lab.cli import Study
from entropy_lab.commands.terminal import console
from entropy_lab.errors import ParameterError
from entropy_lab.studies import runner
from entropy_lab.studies.plan import Plan, PlannedRun, read_plan
from entropy_lab.studies.worker import read_timings


def run(command: Study) -> None:
    """Check the plan, then make what is missing; or only say what that would be."""
    plan = read_plan(command.plan)
    runs = plan.runs(command.seeds)
    study = command.out or Path(f"study-{plan.name}")
    steps = runner.check_plan(plan, runs, study)
    screen = console()
    _print_plan(screen, plan, runs, study)
    if command.dry_run:
        screen.print(f"still to make: {_estimate(runs, steps, study, command.jobs)}")
        return
    progress = runner.run_study(plan, runs, study, jobs=command.jobs, keep_rollouts=command.keep == "rollouts")
    last = _follow(progress, steps)
    screen.print(f"{len(last.done)} of {len(runs)} runs are in {study}/runs/")
    if last.failed:
        for name, why in last.failed.items():
            screen.print(f"[red]failed[/] {name}: {why}")
        wrong = f"{len(last.failed)} of {len(runs)} runs failed; the logs are in {study}/unfinished/"
        raise ParameterError(str(study), wrong, "", "mend the cause and give the same command again")
    screen.print(f"next: entropy-lab figures {study}\n      entropy-lab claims {study}")


def _print_plan(screen: Console, plan: Plan, runs: Sequence[PlannedRun], study: Path) -> None:
    """Show one line per method: its seeds in each setting, and how many of them are there already."""
    screen.print(f"study {plan.name}: {len(runs)} runs; seeds of each method")
    listing = Listing(box=None, pad_edge=False)
    listing.add_column("method", style="cyan")
    for setting, values in plan.settings.items():
        listing.add_column(str(values.get("label", setting)), justify="right")
    planned = Counter((run.method, run.setting) for run in runs)
    made = Counter((run.method, run.setting) for run in runs if (study / "runs" / run.name).exists())
    for method, values in plan.methods.items():
        counts = [(made[method, setting], planned[method, setting]) for setting in plan.settings]
        listing.add_row(str(values.get("label", method)), *(f"{done} of {n}" if done else str(n) for done, n in counts))
    screen.print(listing)


def _estimate(runs: Sequence[PlannedRun], steps: Mapping[str, int], study: Path, jobs: int) -> str:
    """Say how long the missing runs take, from those of this study that are there."""
    missing = [run for run in runs if not (study / "runs" / run.name).exists()]
    n_steps = sum(steps[run.name] for run in missing)
    text = f"{len(missing)} runs, {n_steps:,} updates"
    timings = read_timings(study / "timings.json")
    rates: dict[str, list[float]] = {}
    for run in runs:
        if run.name in timings and steps[run.name] > 1:
            rates.setdefault(run.setting, []).append(timings[run.name]["seconds"] / steps[run.name])
    if not missing:
        return "nothing"
    if not {run.setting for run in missing} <= rates.keys():
        return f"{text}; the time is known once a run of each setting has been made"
    seconds = sum(statistics.mean(rates[run.setting]) * steps[run.name] for run in missing) / jobs
    return f"{text}, about {_duration(seconds)} with {jobs} at a time (by this study's finished runs)"


def _follow(changes: Iterator[runner.Progress], steps: Mapping[str, int]) -> runner.Progress:
    """Show one bar for the whole study until it ends."""
    bar = Progress(
        TextColumn("{task.fields[runs]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left {task.fields[left]}"),
        TextColumn("{task.fields[now]}"),
        console=Console(stderr=True),
        disable=not Console(stderr=True).is_terminal,
    )
    total = sum(steps.values())
    last = runner.Progress()
    with bar:
        task = bar.add_task("", total=total, runs="", left="–", now="")
        first: int | None = None
        for last in changes:
            done = sum(steps[name] for name in last.done) + sum(map(_updates, last.running.values()))
            first = done if first is None else first
            elapsed = bar.tasks[0].elapsed or 0.0
            left = _duration(elapsed / (done - first) * (total - done)) if done > first else "–"
            runs = f"{len(last.done)} of {len(steps)} runs"
            bar.update(task, completed=done, runs=runs, left=left, now=", ".join(last.running))
    return last


def _updates(run: Path) -> int:
    """Count the updates of a run that is being made."""
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(minutes, 1)} min"
