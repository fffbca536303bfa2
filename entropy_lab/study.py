"""A study: runs of several methods and seeds, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from entropy_lab.errors import RunFormatError, RunNotFoundError
from entropy_lab.run import Run, open_run


@dataclass(frozen=True)
class Study:
    """Runs under one directory. Make one with ``open_study``.

    Parameters
    ----------
    path
        The study's directory.
    runs
        Its runs, by name.
    """

    path: Path
    runs: tuple[Run, ...]

    @cached_property
    def info(self) -> Mapping[str, Any]:
        """What ``study.json`` says; empty when there is none.

        Raises
        ------
        RunFormatError
            ``study.json`` is not a JSON object.
        """
        file = self.path / "study.json"
        try:
            info = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except ValueError as error:
            raise RunFormatError(str(file), f"is not JSON ({error})", "a JSON object") from error
        if not isinstance(info, dict):
            raise RunFormatError(str(file), f"holds a {type(info).__name__}", "a JSON object")
        return info


def open_study(path: str | Path, *, skip_invalid: bool = False) -> Study:
    """Open a study: a directory with ``runs/<method>-seed<k>/``, or one run, which is a study of one.

    Parameters
    ----------
    path
        The directory.
    skip_invalid
        As in ``open_run``, for every run.

    Returns
    -------
    Study
        With at least one run; nothing of a run is read yet.

    Raises
    ------
    RunNotFoundError
        There is no such directory, or no run in it.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.writer import RunWriter
    >>> folder = Path(tempfile.mkdtemp())
    >>> for seed in (0, 1):
    ...     _ = RunWriter(folder / "runs" / f"grpo-seed{seed}", method={"name": "grpo", "params": {}}, seed=seed)
    >>> len(open_study(folder).runs)
    2
    """
    folder = Path(path)
    found = sorted(file.parent for file in folder.glob("runs/*/run.json"))
    if (folder / "run.json").exists() or not found:
        if folder.is_dir() and not (folder / "run.json").exists():
            allowed = "a study with runs/<method>-seed<k>/run.json, or a run with run.json"
            raise RunNotFoundError(str(path), "holds no run", allowed, "entropy-lab train grpo --out STUDY/runs/NAME")
        return Study(folder, (open_run(folder, skip_invalid=skip_invalid),))
    return Study(folder, tuple(open_run(run, skip_invalid=skip_invalid) for run in found))
