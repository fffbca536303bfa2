"""One run of a study, from training to its place among the finished ones; and the process that makes such runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import polars as pl

from entropy_lab.analysis import analyze_all
from entropy_lab.errors import EntropyLabError
from entropy_lab.files import replacing
from entropy_lab.run import open_run
from entropy_lab.studies.settings import configured, load_trainer
from entropy_lab.table import Table

ROWS: Final = ("rollouts", "evals")
"""What `compacted` runs are without."""


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do.

    Parameters
    ----------
    trainer
        Name or path of the trainer.
    where
        What to name in an error.
    values
        Settings of the trainer.
    place
        Where the run is made.
    target
        Where it goes when it is whole.
    keep_rollouts
        False to keep the tables of the analyses only.
    """

    trainer: str
    where: str
    values: Mapping[str, Any]
    place: Path
    target: Path
    keep_rollouts: bool


def make_run(job: Job) -> dict[str, float]:
    """Train, analyse, and move the run to its place in one step: there is a whole run, or none.

    Parameters
    ----------
    job
        What to do; ``job.place`` must not exist.

    Returns
    -------
    dict of str to float
        ``seconds`` and ``cpu_seconds`` of the whole, and the trainer's own timings, summed over its steps.

    Raises
    ------
    EntropyLabError
        The settings do not fit, or something cannot be written.
    """
    began, cpu = time.perf_counter(), time.process_time()
    trainer = load_trainer(job.trainer)
    trainer.main(configured(trainer.Config, job.where, job.values, job.place))
    trained = time.perf_counter()
    for name, table in analyze_all(open_run(job.place)).tables.items():
        (table if job.keep_rollouts else single_precision(table)).write(job.place / "analysis" / f"{name}.parquet")
    spent = step_timings(job.place / "metrics.jsonl")
    if not job.keep_rollouts:
        for name in ROWS:
            shutil.rmtree(job.place / name, ignore_errors=True)
        (job.place / "metrics.jsonl").unlink()
    os.sync()  # a rename may reach the disk before what it renames
    job.target.parent.mkdir(parents=True, exist_ok=True)
    job.place.rename(job.target)
    now = time.perf_counter()
    spent |= {"time_analysis": now - trained, "seconds": now - began, "cpu_seconds": time.process_time() - cpu}
    return {name: round(value, 3) for name, value in spent.items()}


def single_precision(table: Table) -> Table:
    """Store a table's numbers in float32: half the size, and 7 digits are more than a mean over a step has.

    Examples
    --------
    >>> table = Table.of("entropy", {"step": [0], "entropy": [0.1]})
    >>> single_precision(table).frame.dtypes
    [Int32, Float32]
    """
    return replace(table, frame=table.frame.with_columns(pl.col(pl.Float64).cast(pl.Float32)))


def step_timings(metrics: Path) -> dict[str, float]:
    """Sum the timings of a run's steps.

    Parameters
    ----------
    metrics
        Its ``metrics.jsonl``.

    Returns
    -------
    dict of str to float
        ``time_rollout``, ``time_update``, … in seconds.
    """
    total: dict[str, float] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        for name, value in json.loads(line).items():
            if name.startswith("time_"):
                total[name] = total.get(name, 0.0) + value
    return total


def serve(pipe: Connection) -> None:
    """Make the runs that come through a pipe, one after another, until it is closed; the body of a worker process.

    Imports of torch and transformers are paid once. What the trainer prints goes to a file beside the run.

    Parameters
    ----------
    pipe
        Gives a `Job`; takes ``("done", timings)``, ``("refused", line)`` for what a user can mend, or
        ``("failed", last line of the traceback)``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    threading.Thread(target=_follow_the_parent, daemon=True).start()
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        log = job.place.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
            answer = _answer(job)
        if answer[0] == "done":
            log.unlink()
        pipe.send(answer)


def _answer(job: Job) -> tuple[str, Any]:
    try:
        return "done", make_run(job)
    except EntropyLabError as error:
        return "refused", str(error)
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        return "failed", f"{type(error).__name__}: {error}"


def _follow_the_parent() -> None:
    """End this process when the one that began it is gone, even if it was killed: nobody would take the result."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def note_timings(file: Path, name: str, timings: Mapping[str, float]) -> None:
    """Add a run's timings to the study's, whole or not at all.

    Parameters
    ----------
    file
        ``timings.json``: run -> timings.
    name
        The run.
    timings
        From `make_run`.
    """
    known = read_timings(file)
    with replacing(file) as temporary:
        temporary.write_text(json.dumps({**known, name: dict(timings)}, indent=1) + "\n", encoding="utf-8")


def read_timings(file: Path) -> dict[str, dict[str, float]]:
    """Read a study's timings; none when there is no such file.

    Examples
    --------
    >>> read_timings(Path("nowhere/timings.json"))
    {}
    """
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
