"""One Parquet file per step: finding them, and reading one whole or in part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from entropy_lab.errors import RunFormatError

UNREADABLE: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What reading a damaged Parquet file raises; fuzzing shows polars to panic at one file in a hundred."""

_STEP_FILE: Final = re.compile(r"step-(\d+)\.parquet")


@dataclass(frozen=True)
class StepFile:
    """One step's Parquet file: which step, where, and its schema's table."""

    step: int
    path: Path
    label: str

    def schema(self) -> Mapping[str, pl.DataType]:
        """Read the file's columns and types from its footer.

        Raises
        ------
        RunFormatError
            The file is not whole.
        """
        try:
            return pl.read_parquet_schema(self.path)
        except UNREADABLE as error:
            raise self._damaged(error) from error

    def n_rows(self) -> int:
        """Count the file's rows from its footer."""
        rows: int = pl.scan_parquet(self.path, glob=False).select(pl.len()).collect().item()
        return rows

    def read(self, columns: list[str]) -> pl.DataFrame:
        """Read some columns of the file.

        Raises
        ------
        RunFormatError
            The file is damaged.
        """
        try:
            return pl.read_parquet(self.path, columns=columns, glob=False)
        except UNREADABLE as error:
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> RunFormatError:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        allowed, hint = "a whole Parquet file", "write it again, or --skip-invalid analyses the rest"
        return RunFormatError(self.label, f"cannot be read ({said})", allowed, hint)


def step_files(run: Path, folder: str) -> tuple[StepFile, ...]:
    """Find the step files of a run's folder, by step.

    Parameters
    ----------
    run
        The run's directory.
    folder
        ``"rollouts"`` or ``"evals"``.

    Returns
    -------
    tuple of StepFile
        Files named ``step-<number>.parquet``; others, such as one being written, are passed over.

    Raises
    ------
    RunFormatError
        Two names state the same step.

    Examples
    --------
    >>> step_files(Path("/nowhere"), "rollouts")
    ()
    """
    files: dict[int, StepFile] = {}
    for path in sorted((run / folder).glob("step-*.parquet")):
        if match := _STEP_FILE.fullmatch(path.name):
            step, label = int(match[1]), str(path)
            if step in files:
                raise RunFormatError(label, f"step {step} is in {files[step].label} too", "one file a step")
            files[step] = StepFile(step, path, label)
    return tuple(files[step] for step in sorted(files))
