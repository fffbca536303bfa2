"""Weights & Biases: project ``entropy-lab``, or that of ``WANDB_PROJECT``; ``WANDB_MODE=offline`` needs no network."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from entropy_lab.rl.sinks.note import read_note, write_note
from entropy_lab.rl.sinks.sink import LoggedRun
from entropy_lab.rl.sinks.wandb_files import last_step

_NAME: Final = "wandb"


class WandbSink:
    """Logs to a run of Weights & Biases whose id is kept with the run.

    Its files go to ``RUN/wandb``, or where ``WANDB_DIR`` says. When the run goes on, the server says which step it has
    last; offline, the files say it. So what a killed process had not passed on is passed on then, and nothing twice.

    Parameters
    ----------
    run
        The run.
    """

    def __init__(self, run: LoggedRun) -> None:
        import wandb

        run_id = read_note(run.path, _NAME).get("id") or secrets.token_hex(4)
        write_note(run.path, _NAME, {"id": run_id})
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "entropy-lab"),
            name=run.name,
            group=run.group,
            config=dict(run.config),
            id=run_id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(run.path)),
        )
        self.last = int(self._run.step) - 1
        if self._run.offline:
            # RUN/wandb/offline-run-<time>-<id>/files: the parts that earlier processes wrote are beside this one.
            parts = Path(self._run.dir).parents[1].glob(f"*run-*-{run_id}/*.wandb")
            self.last = max([self.last, *map(last_step, parts)])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand an update's numbers over."""
        self._run.log(dict(values), step=step, commit=True)

    def close(self, failed: bool) -> None:
        """Finish the run there; online, this waits until all is sent."""
        self._run.finish(exit_code=int(failed))
