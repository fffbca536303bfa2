"""Where a training run begins or goes on, and with which settings it may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import nn

from entropy_lab.configuration import difference
from entropy_lab.errors import OutputError, ParameterError
from entropy_lab.rl.checkpoint import Checkpoint, Controller, latest
from entropy_lab.run import open_run
from entropy_lab.writer import finished_updates, require_free


def is_begun(run: Path) -> bool:
    """Tell whether a run was begun in a directory: run.json is the first thing written.

    Examples
    --------
    >>> is_begun(Path("/nowhere"))
    False
    """
    return (run / "run.json").exists()


class Resumable(Protocol):
    """What the settings of a trainer that can go on say, among others."""

    out: Path
    """Directory of the run."""
    resume: bool
    """True to go on with a run that is there."""
    steps: int
    """Updates of the whole run."""
    checkpoint_every: int
    """Updates between checkpoints."""


def require_startable(config: Resumable) -> None:
    """Refuse a place that holds something else, or a run of other settings, before a trainer spends time.

    Parameters
    ----------
    config
        A dataclass instance; fields that `configuration.saved` leaves out may differ from the run's.

    Raises
    ------
    OutputError
        The directory is not empty, and has no run to go on with.
    ParameterError
        A setting differs from the run's.
    RunFormatError
        run.json cannot be read.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> require_startable(SimpleNamespace(out=Path("/nowhere/yet"), resume=True, steps=80, checkpoint_every=10))
    """
    if not (config.resume and is_begun(config.out)):
        require_free(config.out)
        return
    changed = difference(open_run(config.out).info.get("config", {}), config)
    if changed:
        name, was, now = changed
        wrong = f"was begun with {name} {was!r}, this says {now!r}"
        raise ParameterError(str(config.out), wrong, "a run goes on with its own settings", "another --out")


@dataclass(frozen=True)
class Start:
    """Where training begins."""

    begun: bool
    """Whether the run was begun by an earlier start."""
    done: int
    """Updates that are not to be made again."""
    checkpoint: Path | None
    """File of the state after them; None where that is the beginning, or where nothing is left to do."""

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, controllers: Mapping[str, Controller]
    ) -> float:
        """Bring fresh objects to the state in which training begins.

        The checkpoint is read here and not kept: it is as large as the weights and both moments of AdamW.

        Parameters
        ----------
        model, optimizer, controllers
            See `Checkpoint.restore`; changed in place.

        Returns
        -------
        float
            Seconds that training has taken so far.

        Raises
        ------
        ParameterError, RunFormatError
            As `Checkpoint.restore` and `Checkpoint.load`.
        """
        if self.checkpoint is None:
            return 0.0
        checkpoint = Checkpoint.load(self.checkpoint)
        checkpoint.restore(model, optimizer, controllers)
        return checkpoint.seconds


BEGINNING: Final = Start(begun=False, done=0, checkpoint=None)
"""Of a run that nobody has begun."""


def find_start(config: Resumable) -> Start:
    """Find where a run begins or goes on. Call it with nobody else writing to the run.

    Parameters
    ----------
    config
        A dataclass instance. Without a checkpoint, at most ``checkpoint_every`` updates are made again: so many had a
        run finished that was stopped before its first one.

    Returns
    -------
    Start
        ``done == steps`` for a run that is complete: its checkpoint is that of its last update, or it has none and
        all its metrics.

    Raises
    ------
    OutputError
        Too many updates would be made again; or as `require_startable`.
    ParameterError
        As `require_startable`.
    RunFormatError
        There are checkpoints, and none is whole.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> find_start(SimpleNamespace(out=Path("/nowhere/yet"), resume=True, steps=80, checkpoint_every=10))
    Start(begun=False, done=0, checkpoint=None)
    """
    require_startable(config)
    run = config.out
    checkpoint = latest(run)
    if checkpoint is not None:
        return Start(True, checkpoint.step + 1, checkpoint.file_in(run))
    finished = finished_updates(run)
    if config.checkpoint_every < finished < config.steps:
        wrong = f"has {finished} finished updates and no checkpoint"
        allowed = f"at most checkpoint_every = {config.checkpoint_every} are made again"
        raise OutputError(str(run), wrong, allowed, "another --out")
    return Start(is_begun(run), finished if finished == config.steps else 0, None)
