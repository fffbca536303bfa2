"""TensorBoard: event files in the run's own directory, ``tensorboard --logdir RUN``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from entropy_lab.rl.sinks.sink import LoggedRun

_FOLDER: Final = "tensorboard"


class TensorBoardSink:
    """Writes event files to ``RUN/tensorboard``.

    When the run goes on, all of it is written again, from its record: readers drop what is at or after the step at
    which a later file begins. So no step is there twice, and none that a killed process did not write is missing.
    Event files hold float32.

    Parameters
    ----------
    run
        The run.
    """

    def __init__(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / _FOLDER
        begun = folder.is_dir()
        self.last = -1
        self._writer = SummaryWriter(str(folder), purge_step=0 if begun else None)
        if not begun:  # what is no scalar stays when a later file begins
            # A run name of its own would make a second run beside this one.
            self._writer.add_hparams(dict(_flat(run.config)), {}, run_name=".")
            about = json.dumps({"name": run.name, "group": run.group, **run.config}, indent=1, default=str)
            self._writer.add_text("config", f"```json\n{about}\n```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write an update's numbers to the file, at once."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """Close the file."""
        self._writer.close()


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Give names with dots, and values that a table of hyperparameters can hold."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, bool | int | float | str) else str(value)
