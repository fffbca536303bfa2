"""Make the runs of a study that are not there yet, several at a time.

``STUDY/runs/`` holds whole runs only: a run is made in ``STUDY/unfinished/`` and moved when it is done. Whatever stops
a study, it therefore goes on where it was; what a run had not finished is made again, equal to the bit.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from entropy_lab.configuration import difference
from entropy_lab.errors import ParameterError
from entropy_lab.files import alone, replacing
from entropy_lab.studies.plan import Plan, PlannedRun
from entropy_lab.studies.settings import configured, load_trainer
from entropy_lab.studies.worker import Job, note_timings, serve

FORMAT = "entropy-lab/study"


@dataclass
class Progress:
    """What has happened so far.

    Parameters
    ----------
    done
        Names of finished runs, those of earlier starts included.
    failed
        Run -> why.
    running
        Run -> its directory while it is made.
    """

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[str, Path] = field(default_factory=dict)


def check_plan(plan: Plan, runs: Sequence[PlannedRun], study: Path) -> dict[str, int]:
    """Fill every run's configuration and compare finished runs with what is planned now.

    Parameters
    ----------
    plan
        The study.
    runs
        Its runs.
    study
        Its directory, which may not exist.

    Returns
    -------
    dict of str to int
        Run -> its number of updates.

    Raises
    ------
    UnknownNameError, ParameterError
        A setting does not exist, has the wrong type or does not fit; or a finished run was made with another one.
    MissingExtraError
        The trainer cannot be loaded.
    """
    trainer = load_trainer(plan.trainer)
    steps = {}
    for run in runs:
        target = study / "runs" / run.name
        config = configured(trainer.Config, run.where, run.values, target)
        steps[run.name] = int(config.steps)
        if target.exists():
            _require_same(target, config)
        elif run.seed == 0:
            trainer.prepare(replace(config, out=study / "unfinished" / "check" / run.name))
    return steps


def _require_same(run: Path, planned: Any) -> None:  # noqa: ANN401 - a trainer's own dataclass
    changed = difference(json.loads((run / "run.json").read_text(encoding="utf-8"))["config"], planned)
    if changed:
        name, was, now = changed
        wrong = f"was made with {name} {was!r}, the study says {now!r}"
        hint = "another --out, or remove the run to make it again"
        raise ParameterError(str(run), wrong, "one study, one meaning of a name", hint)


def run_study(
    plan: Plan, runs: Sequence[PlannedRun], study: Path, *, jobs: int, keep_rollouts: bool
) -> Iterator[Progress]:
    """Make what is missing.

    Parameters
    ----------
    plan, runs
        What to make, in this order.
    study
        Directory of the study; made when missing.
    jobs
        Runs at a time, each on one core.
    keep_rollouts
        False to keep the tables of the analyses only.

    Yields
    ------
    Progress
        The same object, after every change and about twice a second. Closing the iterator stops the workers.

    Raises
    ------
    ParameterError
        ``jobs`` is below 1.
    OutputError
        Another process makes this study, or it cannot be written.
    """
    if jobs < 1:
        raise ParameterError("jobs", f"is {jobs}", "1 or more")
    progress = Progress({run.name for run in runs if (study / "runs" / run.name).exists()})
    missing = [run for run in runs if run.name not in progress.done]
    with alone(study):
        _write_info(plan, runs, study)
        workshop = study / "unfinished"
        shutil.rmtree(workshop, ignore_errors=True)
        yield progress
        workers = [_Worker() for _ in range(min(jobs, len(missing)))]
        try:
            yield from _make(plan, missing, study, workers, progress, keep_rollouts)
        finally:
            for worker in workers:
                worker.stop()
        if not progress.failed:
            shutil.rmtree(workshop, ignore_errors=True)


def _make(
    plan: Plan, missing: list[PlannedRun], study: Path, workers: list[_Worker], progress: Progress, keep: bool
) -> Iterator[Progress]:
    queue = iter(missing)
    idle = list(workers)
    while True:
        while idle and (run := next(queue, None)) is not None:
            # The process's number keeps what a killed start may still be writing apart from this one.
            place = study / "unfinished" / str(os.getpid()) / run.name
            job = Job(plan.trainer, run.where, run.values, place, study / "runs" / run.name, keep)
            idle.pop().begin(job)
            progress.running[run.name] = place
        busy = [worker for worker in workers if worker.job is not None]
        if not busy:
            return
        for worker in _ready(busy):
            name, (outcome, told) = worker.finish()
            del progress.running[name]
            if outcome == "done":
                progress.done.add(name)
                note_timings(study / "timings.json", name, told)
            else:
                progress.failed[name] = told
            idle.append(worker)
        yield progress


def _ready(busy: list[_Worker]) -> list[_Worker]:
    answered = wait([worker.pipe for worker in busy], timeout=0.5)
    return [worker for worker in busy if worker.pipe in answered]


class _Worker:
    """A process that makes runs, begun anew when it dies."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self._begin_process()

    def _begin_process(self) -> None:
        # A fresh interpreter: a fork of one that has loaded torch may hang in its threads.
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, job: Job) -> None:
        """Hand over a job."""
        self.job = job
        self.pipe.send(job)

    def finish(self) -> tuple[str, tuple[str, Any]]:
        """Take the answer; a process that died (for want of memory, say) has failed."""
        assert self.job is not None
        name, self.job = self.job.target.name, None
        try:
            return name, self.pipe.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            self._begin_process()
            return name, ("failed", f"its process ended with exit code {code}")

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _write_info(plan: Plan, runs: Sequence[PlannedRun], study: Path) -> None:
    info = {
        "format": FORMAT,
        "version": 1,
        "name": plan.name,
        "trainer": plan.trainer,
        "seeds": sorted({run.seed for run in runs}),
        "defaults": dict(plan.defaults),
        "settings": dict(plan.settings),
        "methods": dict(plan.methods),
    }
    with replacing(study / "study.json") as temporary:
        temporary.write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
