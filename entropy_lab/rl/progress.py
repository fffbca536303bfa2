"""Progress bar and stop watch of a training run; no bar is shown where the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """Shows how far the warm start and the training are, with the latest numbers.

    Parameters
    ----------
    console
        Where to show it; default standard output.

    Examples
    --------
    >>> import io
    >>> text = io.StringIO()
    >>> with TrainingProgress(Console(file=text)) as progress:
    ...     progress.show("training", 1, 2, {"entropy": 0.37})
    >>> text.getvalue()
    ''
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar_of: dict[str, TaskID] = {}

    def __enter__(self) -> TrainingProgress:
        if not self._bars.disable:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._bars.disable:  # some versions of rich end even a disabled bar with a line break
            self._bars.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bars and also where the output is not a terminal.

        Parameters
        ----------
        line
            As it is to be read.
        """
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, stage: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        """Move a stage's bar.

        Parameters
        ----------
        stage
            Its name; a bar is added when it is new.
        done, total
            Steps done and steps in all.
        numbers
            Named values to show beside the bar.
        """
        if stage not in self._bar_of:
            self._bar_of[stage] = self._bars.add_task(stage, total=total, numbers="")
        text = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        self._bars.update(self._bar_of[stage], completed=done, numbers=text)

    def stage(self, stage: str) -> Callable[[int, int, float], None]:
        """Give what moves a stage's bar when it is told steps done, steps in all and the loss.

        Parameters
        ----------
        stage
            Its name.

        Returns
        -------
        callable
            For functions that report their progress.
        """
        return lambda done, total, loss: self.show(stage, done, total, {"loss": loss})


class StopWatch:
    """Adds up the seconds between calls of ``lap``, by name.

    Examples
    --------
    >>> watch = StopWatch()
    >>> watch.lap("time_rollout")
    >>> list(watch.laps)
    ['time_rollout']
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last call, or since the watch was made, to ``name``."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
