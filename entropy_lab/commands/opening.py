"""Opening whatever run a command is given: ours where it is, another framework's through its reader."""

from __future__ import annotations

import sys
from pathlib import Path

from entropy_lab.cli import Foreign
from entropy_lab.errors import ParameterError
from entropy_lab.readers import Options, open_any
from entropy_lab.run import Run


def options_of(command: Foreign, *, skip_invalid: bool = False) -> Options:
    """Read what the command line says about a foreign run.

    Parameters
    ----------
    command
        Any command of `cli.Foreign`.
    skip_invalid
        Leave invalid rows out instead of stopping at the first.

    Raises
    ------
    ParameterError
        A word of ``--map`` is not ``OURS=THEIRS``, or names one of ours twice.

    Examples
    --------
    >>> options_of(Foreign(map=("reward=score",))).columns
    {'reward': 'score'}
    """
    columns: dict[str, str] = {}
    for word in command.map:
        ours, equals, theirs = word.partition("=")
        if not (ours and equals and theirs) or ours in columns:
            raise ParameterError("--map", f"is {word!r}", "OURS=THEIRS, each of ours once, as reward=score")
        columns[ours] = theirs
    return Options(command.format, columns, command.correct_above, command.run_name, skip_invalid)


def open_run_of(command: Foreign, path: Path, *, out: Path | None = None, skip_invalid: bool = False) -> Run:
    """Open the run that a command names; what a foreign one was taken for, and what was met, goes to stderr.

    Parameters
    ----------
    command
        What the user said about it.
    path
        A run of ours, or a directory or log file of another framework.
    out
        Where a foreign run is imported; default beside its files.
    skip_invalid
        As of ``open_run``, and for the import.

    Raises
    ------
    RunNotFoundError, RunFormatError, UnknownNameError, OutputError
        As `readers.open_any`.
    """
    return open_any(path, options_of(command, skip_invalid=skip_invalid), out=out, say=tell)


def tell(line: str) -> None:
    """Print a line for the user beside the command's own output."""
    sys.stderr.write(f"{line}\n")
