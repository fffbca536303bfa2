"""Parts of a step that ranks hand to rank 0, as files in a hidden folder of the run."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from entropy_lab.errors import OutputError
from entropy_lab.files import cannot_write, replacing
from entropy_lab.step_files import UNREADABLE

_LOST: Final = "entropy-lab:lost"


@dataclass
class Parts:
    """The folder through which the ranks of one job hand over their rollouts.

    Rank 0 makes it anew, under a name of its own, so that what a killed job left there is of no harm. The folder is
    hidden, and gone when the run is whole: readers of the run never see it.

    Parameters
    ----------
    run
        The run's directory, on a file system that all ranks see.
    rank
        This process, from 0.
    world_size
        Processes.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> first, second = Parts(folder, 0, 2), Parts(folder, 1, 2)
    >>> first.open()
    >>> second.hand_over(0, pl.DataFrame({"reward": [1.0]}), timeout=1)
    >>> [part.height for part in first.gather(0, timeout=1)]
    [1]
    >>> first.close()
    """

    run: Path
    rank: int
    world_size: int
    _folder: Path | None = None

    def open(self) -> None:
        """Make the folder, and remove those of killed jobs; for rank 0.

        Raises
        ------
        OutputError
            It cannot be made.
        """
        self.close()
        self._folder = self.run / f".parts-{secrets.token_hex(4)}"
        try:
            self._folder.mkdir()
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def close(self) -> None:
        """Remove the folder; for rank 0."""
        for folder in self.run.glob(".parts-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def hand_over(self, step: int, frame: pl.DataFrame, timeout: float, lost: str = "") -> None:
        """Leave this rank's rollouts of a step for rank 0; for the other ranks.

        Parameters
        ----------
        step
            Index of the update.
        frame
            The rollouts; may be empty.
        timeout
            Seconds to wait for rank 0 to begin the run.
        lost
            Why this rank could not record its rollouts.

        Raises
        ------
        OutputError
            The file cannot be written, or rank 0 has not begun the run in time.
        """
        if not _wait(lambda: self._found() is not None, timeout):
            allowed = f"rank 0 begins it within {timeout:g} s"
            raise OutputError(str(self.run), f"rank {self.rank} finds no run", allowed, "make a Recorder on every rank")
        with replacing(self._file(step, self.rank)) as temporary:
            frame.write_parquet(temporary, compression="lz4", metadata={_LOST: json.dumps(lost)})

    def gather(self, step: int, timeout: float) -> list[pl.DataFrame]:
        """Wait for the other ranks' rollouts of a step; for rank 0.

        Parameters
        ----------
        step
            Index of the update.
        timeout
            Seconds to wait.

        Returns
        -------
        list of DataFrame
            Of ranks 1, 2, …; those without rollouts are left out.

        Raises
        ------
        OutputError
            A rank's part has not come in time, cannot be read, or says that the rank could not record it.
        """
        files = {rank: self._file(step, rank) for rank in range(1, self.world_size)}
        if not _wait(lambda: all(file.exists() for file in files.values()), timeout):
            missing = [str(rank) for rank, file in files.items() if not file.exists()]
            wrong = f"step {step} has no part of rank{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
            allowed = f"each of {self.world_size} ranks ends every step, within {timeout:g} s"
            hint = "world_size=1 where rank 0 holds all rollouts"
            raise OutputError(str(self.run), wrong, allowed, hint)
        return [frame for rank, file in files.items() if (frame := self._read(step, rank, file)).width]

    def discard(self, step: int) -> None:
        """Remove the parts of a step; for rank 0."""
        for rank in range(1, self.world_size):
            self._file(step, rank).unlink(missing_ok=True)

    def _read(self, step: int, rank: int, file: Path) -> pl.DataFrame:
        try:
            lost, frame = json.loads(pl.read_parquet_metadata(file)[_LOST]), pl.read_parquet(file, glob=False)
        except UNREADABLE as error:
            raise OutputError(str(file), f"cannot be read ({str(error).splitlines()[0]})") from error
        if lost:
            raise OutputError(str(self.run), f"rank {rank} could not record its part of step {step} ({lost})")
        return frame

    def _found(self) -> Path | None:
        """Give the folder that rank 0 has made; None before it has, or while it replaces that of a killed job."""
        if self.rank == 0 or (self._folder is not None and self._folder.is_dir()):
            return self._folder
        folders = list(self.run.glob(".parts-*"))
        self._folder = folders[0] if len(folders) == 1 else None
        return self._folder

    def _file(self, step: int, rank: int) -> Path:
        folder = self._found()
        if folder is None:
            raise OutputError(str(self.run), "has no folder for the parts of ranks", "rank 0 makes it")
        return folder / f"step-{step:06d}-rank-{rank:05d}.parquet"


def _wait(ready: Callable[[], bool], timeout: float) -> bool:
    """Look again and again, ever more seldom, until something is ready or time is up."""
    end, pause = time.monotonic() + timeout, 0.005
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(min(pause, max(0.0, end - time.monotonic())))
        pause = min(0.5, pause * 1.5)
    return True
