"""Opening whatever run a command is given: ours where it is, another framework's through its reader."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from entropy_lab.cli import Foreign
from entropy_lab.errors import EntropyLabError, ParameterError, RunFormatError
from entropy_lab.readers import Options, is_ours, open_any
from entropy_lab.run import Run, open_run

_FOLDERS: Final = ("rollouts", "evals", "analysis")
_PARTS: Final = (*_FOLDERS, "run.json", "metrics.jsonl")


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
    named = command.format.lower().replace("-", "_") if command.format else None  # NeMo-RL, as it calls itself
    return Options(named, columns, command.correct_above, command.run_name, skip_invalid)


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
    ParameterError, RunFormatError
        As `require_fit`.
    """
    require_fit(command, path)
    return open_any(path, options_of(command, skip_invalid=skip_invalid), out=out, say=tell)


def require_fit(command: Foreign, path: Path) -> None:
    """Refuse what would be read otherwise than the user thinks; where a format is named, nothing is refused.

    Parameters
    ----------
    command
        What the user typed.
    path
        What it is about.

    Raises
    ------
    RunFormatError
        The path is a part of a run of ours: ``RUN/rollouts``, ``RUN/metrics.jsonl``, or a file in such a folder.
    ParameterError
        It is a run of ours, and an option is about another framework's files.

    Examples
    --------
    >>> require_fit(Foreign(correct_above=0.5), Path("nowhere/metrics.jsonl"))
    """
    if command.format:
        return
    _require_whole(command, path)
    options = {
        "--map": " ".join(command.map),
        "--correct-above": "" if command.correct_above is None else f"{command.correct_above:g}",
        "--run-name": command.run_name or "",
    }
    given = [option for option, value in options.items() if value]
    if given and is_ours(path):
        wrong = f"changes nothing in {path}, a run of entropy-lab"
        hint = f"entropy-lab import {path}/rollouts {given[0]} {options[given[0]]} --out NEW"
        raise ParameterError(given[0], wrong, "files to be imported", hint)


def _require_whole(command: Foreign, path: Path) -> None:
    parts = path.absolute().parts
    above = 1 if parts[-1] in _PARTS else 2 if parts[-2:-1] and parts[-2] in _FOLDERS else 0
    if not above or not path.exists():
        return
    whole = Path(*parts[:-above])
    try:
        _ = open_run(whole).info
    except EntropyLabError:
        return
    shown = whole if path.is_absolute() else Path(os.path.relpath(whole))
    hint = f"entropy-lab {type(command).__name__.lower()} {shown}"
    raise RunFormatError(str(path), f"is a part of the run {shown}", "a whole run", hint)


def tell(line: str) -> None:
    """Print a line for the user beside the command's own output."""
    sys.stderr.write(f"{line}\n")
