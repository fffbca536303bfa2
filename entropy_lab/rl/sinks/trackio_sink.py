"""trackio: project ``entropy-lab``, or what ``TRACKIO_PROJECT`` says; its own variables choose where it keeps it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from entropy_lab.rl.sinks.note import read_note, write_note
from entropy_lab.rl.sinks.sink import LoggedRun

_NAME: Final = "trackio"


class TrackioSink:
    """Logs to a run of trackio, in the local database that ``trackio show`` reads.

    trackio goes on with a run by its name, so the name is made to be the only one of its kind in the project, and kept.
    It also says which step it has last: what a killed process did not pass on is passed on when the run goes on.

    Parameters
    ----------
    run
        The run.
    """

    def __init__(self, run: LoggedRun) -> None:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT", "entropy-lab")
        name = read_note(run.path, _NAME).get("name") or _free_name(trackio, project, run.name)
        write_note(run.path, _NAME, {"name": name})
        self._trackio = trackio
        self._run: Any = trackio.init(
            project=project, name=name, group=run.group, config=dict(run.config), resume="allow", embed=False
        )
        self.last = int(self._run._next_step) - 1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand an update's numbers over; trackio writes them within half a second."""
        self._run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        """Wait until all is written."""
        self._trackio.finish()


def _free_name(trackio: Any, project: str, wanted: str) -> str:  # noqa: ANN401 - a module
    try:
        taken = {run.name for run in trackio.Api().runs(project)}
    except ValueError:  # no such project yet
        taken = set()
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name
