"""Another framework's run that is being written: imported anew when its files have changed, and not too often."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from entropy_lab.diagnosis.observed import Observed, observe
from entropy_lab.monitoring.growing import State, state_of
from entropy_lab.readers import Options, open_any
from entropy_lab.readers.tree import Tree
from entropy_lab.run import RunWarning

REST: Final = 9.0
"""Least pause after an import, in times of what it took: a tenth of one core at most goes into imports."""


def _nothing(_: str) -> None:
    pass


class Imported:
    r"""Reads a run of another framework as it grows: whole, into a temporary folder, whenever its files have changed.

    Parameters
    ----------
    path
        The run's directory, or a log file.
    options
        What the user said about it.
    say
        Takes what the first import has to tell the user.

    Attributes
    ----------
    newest
        When the newest file was written, in seconds since 1970; 0 before the first look.

    Examples
    --------
    >>> log = Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = log.write_text("step,entropy\n0,0.5\n1,0.4\n")
    >>> imported = Imported(log)
    >>> for _ in range(2):
    ...     with imported.look() as observed:
    ...         print(observed and len(observed.series["entropy"]))
    2
    None
    """

    def __init__(self, path: Path, options: Options | None = None, *, say: Callable[[str], None] = _nothing) -> None:
        self.newest = 0.0
        self._path, self._options, self._say = path, options, say
        self._seen: dict[Path, State | None] | None = None
        self._rested = 0.0

    @contextmanager
    def look(self, *, now: bool = False) -> Iterator[Observed | None]:
        """Import the run if its files have changed since the last look.

        Parameters
        ----------
        now
            Do so although the last import was only just made.

        Yields
        ------
        Observed or None
            All of the run so far, to be used inside the ``with`` only; None where nothing has changed, or the last
            import was too short ago.

        Raises
        ------
        RunNotFoundError, RunFormatError, UnknownNameError
            As ``readers.open_any``; the next look tries again.
        """
        states = {file: state_of(file) for file in Tree.of(self._path).files}
        self.newest = max((state[-1] / 1e9 for state in states.values() if state is not None), default=0.0)
        if states == self._seen or (not now and time.monotonic() < self._rested):
            yield None
            return
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                observed = self._import(Path(folder) / "run")
                self._seen = states
                yield observed
        finally:
            self._rested = time.monotonic() + REST * (time.monotonic() - began)

    def _import(self, target: Path) -> Observed:
        lines: list[str] = []
        with warnings.catch_warnings():
            # A last line that is cut off, a last step with fewer rollouts: both are the rule while a run is written.
            warnings.simplefilter("ignore", RunWarning)
            observed = observe(open_any(self._path, self._options, out=target, say=lines.append))
        if self._seen is None:
            for line in lines:
                # Where the import is for these moments is no news, nor is it that files are being written.
                if str(target) not in line and not line.startswith("warning: "):
                    self._say(line)
        return observed
