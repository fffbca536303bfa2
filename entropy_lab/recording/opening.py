"""Beginning the record of a run, or going on with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropy_lab.amending import amend_info
from entropy_lab.errors import ParameterError
from entropy_lab.run import open_run
from entropy_lab.writer import RunWriter


@dataclass(frozen=True)
class Start:
    """Where a recorder begins."""

    resumed: bool = False
    """There is a run to go on with."""
    last: int = -1
    """The last update that is kept."""
    seconds: float = 0.0
    """Time until then."""
    lost: tuple[int, ...] = ()
    """Updates up to then that could not be recorded."""


def place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Find out which process this is, of how many: torchrun, Accelerate and others say so in the environment.

    Parameters
    ----------
    rank, world_size
        What the user says; None for the environment's ``RANK`` and ``WORLD_SIZE``, else 0 and 1.

    Returns
    -------
    tuple of int
        Rank and world size.

    Raises
    ------
    ParameterError
        They do not fit together, or are no integers.

    Examples
    --------
    >>> place(3, 8)
    (3, 8)
    """
    values = {"rank": rank, "world_size": world_size}
    for name, default in (("rank", 0), ("world_size", 1)):
        if values[name] is None and not (name == "rank" and world_size == 1):
            text = os.environ.get(name.upper(), default)
            try:
                values[name] = int(text)
            except ValueError as error:
                raise ParameterError(name.upper(), f"is {text!r} in the environment", "an integer") from error
    found = (values["rank"] or 0, 1 if values["world_size"] is None else values["world_size"])
    if not 0 <= found[0] < found[1]:
        raise ParameterError("rank", f"is {found[0]} of {found[1]} processes", "0 to world_size - 1")
    return found


def where_to_go_on(path: Path, method: Mapping[str, Any], *, resume: bool, last_step: int | None) -> Start:
    """Read from a run where its record goes on.

    Parameters
    ----------
    path
        Directory of the run.
    method
        The method that goes on.
    resume
        Whether to go on at all.
    last_step
        The last update to keep; None for the last one whose line of ``metrics.jsonl`` is there.

    Returns
    -------
    Start
        The default one where there is no run.

    Raises
    ------
    ParameterError
        The run was made by another method, or `last_step` is given without `resume`.
    """
    if last_step is not None and not resume:
        raise ParameterError("last_step", f"is {last_step} without resume", "resume=True beside it")
    if not resume or not (path / "run.json").exists():
        return Start()
    run = open_run(path)
    if run.method["name"] != method["name"]:
        wrong = f"is {method['name']!r}, and {path} was made by {run.method['name']!r}"
        raise ParameterError("method", wrong, "the same", "choose another directory")
    metrics = run.metrics()
    steps = metrics["step"].to_list() if "step" in metrics.columns else []
    last = last_step if last_step is not None else max(steps, default=-1)
    kept = metrics.filter(metrics["step"] <= last) if steps else metrics
    seconds = kept["time"].max() if kept.height and "time" in kept.columns else 0.0
    incomplete = run.info.get("incomplete", {})
    lost = tuple(step for step in incomplete.get("steps", ()) if step <= last)
    return Start(resumed=True, last=last, seconds=float(seconds or 0.0), lost=lost)  # type: ignore[arg-type]


def begin(path: Path, start: Start, **about: Any) -> RunWriter:
    """Begin a run, or cut it to where it goes on.

    Parameters
    ----------
    path
        Directory of the run.
    start
        From `where_to_go_on`.
    **about
        See `RunWriter`.

    Returns
    -------
    RunWriter
        Of the next update.
    """
    if not start.resumed:
        return RunWriter(path, **about)
    writer = RunWriter.resume(path, after=start.last)
    if "incomplete" in open_run(path).info:
        amend_info(path, incomplete={**open_run(path).info["incomplete"], "steps": list(start.lost)})
    return writer
