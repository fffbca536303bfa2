"""Opening a run: nothing is read before it is needed, and nothing is read whole."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from entropy_lab.errors import RunFormatError, RunNotFoundError
from entropy_lab.schema import EVALS, FORMAT, ROLLOUTS, SUPPORTED_VERSIONS, Column
from entropy_lab.step_files import StepFile, step_files
from entropy_lab.validation import (
    CHECK,
    EVAL_KEY,
    Breach,
    polars_dtype,
    repeat_breach,
    row_breaches,
    schema_breaches,
)


class RunWarning(UserWarning):
    """Something in a run that a reader should know, and that does not stop the analysis."""


@dataclass(frozen=True)
class Skipped:
    """What ``skip_invalid`` left out: how many rows of which file, and why. ``rows`` is None when nobody can count."""

    file: str
    rows: int | None
    why: str


@dataclass
class Run:
    """A run on disk. Make one with ``open_run``.

    Parameters
    ----------
    path
        The run's directory.
    skip_invalid
        Leave invalid rows and files out, and list them in ``skipped``, instead of raising at the first.

    Attributes
    ----------
    skipped
        What was left out by the readings so far.
    """

    path: Path
    skip_invalid: bool = False
    skipped: list[Skipped] = field(default_factory=list)

    @cached_property
    def info(self) -> Mapping[str, Any]:
        """What ``run.json`` says, checked for format and version; unknown keys are kept.

        Raises
        ------
        RunFormatError
            ``run.json`` is absent, not JSON, of another format or an unknown version.
        """
        return _read_info(self.path / "run.json")

    @property
    def name(self) -> str:
        """The run's name, else its folder's."""
        return str(self.info.get("name") or self.path.resolve().name)

    @property
    def method(self) -> Mapping[str, Any]:
        """``{"name": …, "params": {…}}``; the name is ``"unknown"`` when nobody recorded one."""
        method = self.info.get("method")
        return method if isinstance(method, Mapping) and "name" in method else {"name": "unknown", "params": {}}

    @cached_property
    def step_files(self) -> tuple[StepFile, ...]:
        """Files of ``rollouts/``, by step."""
        return step_files(self.path, "rollouts")

    @cached_property
    def eval_files(self) -> tuple[StepFile, ...]:
        """Files of ``evals/``, by step."""
        return step_files(self.path, "evals")

    @cached_property
    def sound_files(self) -> Mapping[StepFile, Mapping[str, pl.DataType]]:
        """Rollout files whose footers are whole and whose schemas fit the run format, with those schemas.

        Raises
        ------
        RunFormatError
            A file is cut off, lacks a required column, or has one of another kind (not with ``skip_invalid``).
        """
        return dict(self._sound(self.step_files, ROLLOUTS))

    @property
    def readable_files(self) -> tuple[StepFile, ...]:
        """Files of ``sound_files`` but those that a reading so far found damaged and listed in ``skipped``."""
        damaged = {item.file for item in self.skipped if item.rows is None}
        return tuple(file for file in self.sound_files if file.label not in damaged)

    @cached_property
    def sound_evals(self) -> Mapping[StepFile, Mapping[str, pl.DataType]]:
        """Validation files whose footers are whole and whose schemas fit, as ``sound_files``."""
        return dict(self._sound(self.eval_files, EVALS))

    @cached_property
    def columns(self) -> frozenset[str]:
        """Columns that at least one rollout file has, and ``evals.<column>`` for validation passes."""
        names = {name for schema in self.sound_files.values() for name in schema}
        evals = {f"evals.{name}" for schema in self.sound_evals.values() for name in schema}
        return frozenset(names | evals)

    def read(self, file: StepFile, columns: list[str], table: Mapping[str, Column] = ROLLOUTS) -> pl.DataFrame:
        """Read one step's valid rows.

        Parameters
        ----------
        file
            One of ``step_files`` (or ``eval_files``, with ``table=EVALS``).
        columns
            Columns that the file has; those that make up the row's key must be among them.
        table
            The schema that the rows must keep.

        Raises
        ------
        RunFormatError
            A row breaks a rule (not with ``skip_invalid``).
        """
        try:
            frame = file.read(columns)
        except RunFormatError as error:
            if not self.skip_invalid:
                raise
            self.skipped.append(Skipped(file.label, None, error.wrong))
            return pl.DataFrame(schema={name: file.schema()[name] for name in columns})
        return self._settle(file, frame, list(row_breaches(frame, table, file.step)))

    def without_repeats(self, file: StepFile, frame: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
        """Leave out rows that repeat a key (with ``skip_invalid``), or raise."""
        breach = repeat_breach(frame, key)
        return self._settle(file, frame, [breach] if breach else [])

    def evals(self) -> Iterator[pl.DataFrame]:
        """Yield the verdicts of each validation pass: the key columns of ``schema.EVALS`` and ``correct``, checked.

        Raises
        ------
        RunFormatError
            A file or row is invalid (not with ``skip_invalid``).
        """
        for file, schema in self.sound_evals.items():
            names = ("step", *EVAL_KEY, "correct")
            frame = self.read(file, [name for name in names if name in schema], EVALS)
            frame = self.without_repeats(file, frame, EVAL_KEY)
            absent = [pl.lit(None, polars_dtype(EVALS[name].dtype)).alias(name) for name in names if name not in schema]
            yield frame.with_columns(absent)

    def scan(self) -> pl.LazyFrame:
        """All rollouts as one lazy polars frame, rows unchecked.

        A column that only some files have is null in the rows of the others. Without rollouts the frame has no column.

        Raises
        ------
        RunFormatError
            A file is damaged or its columns do not fit (not with ``skip_invalid``).
        """
        frames = [pl.scan_parquet(file.path, glob=False) for file in self.sound_files]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.LazyFrame()

    def metrics(self) -> pl.DataFrame:
        """Read ``metrics.jsonl``; an empty frame when there is none.

        A last line that was cut off is ignored with a ``RunWarning``: the run may still be growing.

        Raises
        ------
        RunFormatError
            A line before the last is not a JSON object (with ``skip_invalid`` it is left out).
        """
        return pl.DataFrame(list(self._metric_rows()), infer_schema_length=None, strict=False)

    def _metric_rows(self) -> Iterator[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            if (row := metric_row(line)) is not None:
                yield row
            elif number == len(lines):
                warnings.warn(f"{path}: line {number} is cut off and ignored", RunWarning, stacklevel=2)
            else:
                self.leave_out_line(number)

    def leave_out_line(self, number: int) -> None:
        """Note that a line of ``metrics.jsonl``, counted from 1, is no JSON object.

        Raises
        ------
        RunFormatError
            Unless ``skip_invalid``.
        """
        path = self.path / "metrics.jsonl"
        breach = Breach("", f"line {number} is not a JSON object", "one JSON object a line")
        if not self.skip_invalid:
            raise breach.error(str(path))
        left_out = Skipped(str(path), 1, breach.described)
        if left_out not in self.skipped:  # read before
            self.skipped.append(left_out)

    def _sound(
        self, files: tuple[StepFile, ...], table: Mapping[str, Column]
    ) -> Iterator[tuple[StepFile, Mapping[str, pl.DataType]]]:
        for file in files:
            try:
                schema = file.schema()
            except RunFormatError as error:
                if not self.skip_invalid:
                    raise
                self.skipped.append(Skipped(file.label, None, error.wrong))
                continue
            breach = next(schema_breaches(schema, table), None)
            if breach is None:
                yield file, schema
            elif self.skip_invalid:
                self.skipped.append(Skipped(file.label, file.n_rows(), breach.described))
            else:
                raise breach.error(file.label)

    def _settle(self, file: StepFile, frame: pl.DataFrame, breaches: Sequence[Breach]) -> pl.DataFrame:
        """Raise the first breach, or leave out the rows of all; a row with two faults counts for the first."""
        sound = np.ones(frame.height, dtype=np.bool_)
        for breach in breaches:
            if not self.skip_invalid or breach.rows is None:
                raise breach.error(file.label)
            if n_rows := int((breach.rows & sound).sum()):
                self.skipped.append(Skipped(file.label, n_rows, breach.described))
            sound &= ~breach.rows
        return frame.filter(sound) if breaches else frame


def open_run(path: str | Path, *, skip_invalid: bool = False) -> Run:
    """Open a run directory; no file is read yet.

    Parameters
    ----------
    path
        The directory that holds ``run.json``.
    skip_invalid
        Leave invalid rows and files out, counted and named in ``Run.skipped``, instead of raising at the first.

    Returns
    -------
    Run
        Reads on demand.

    Raises
    ------
    RunNotFoundError
        There is no such directory, or it holds no run.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.writer import RunWriter
    >>> folder = tempfile.mkdtemp() + "/run"
    >>> _ = RunWriter(folder, method={"name": "grpo", "params": {}})
    >>> open_run(folder).method["name"]
    'grpo'
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise RunNotFoundError(str(path), what, "a run directory that holds run.json", "entropy-lab demo makes one")
    if not (folder / "run.json").exists():
        inner = sorted(p.parent.name for p in folder.glob("runs/*/run.json"))
        hint = f"entropy-lab figures {path}" if inner else f"entropy-lab import {path} --out RUN"
        raise RunNotFoundError(str(path), "holds no run.json", "a run directory that holds run.json", hint)
    return Run(folder, skip_invalid)


def metric_row(line: str) -> dict[str, Any] | None:
    """Parse a line of ``metrics.jsonl``; None where it is no JSON object, or only half of one.

    Examples
    --------
    >>> metric_row('{"step": 0}'), metric_row('{"step":')
    ({'step': 0}, None)
    """
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _read_info(path: Path) -> Mapping[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFormatError(str(path), f"cannot be read ({error.strerror})", "a JSON object") from error
    except ValueError as error:
        raise RunFormatError(str(path), f"is not JSON ({error})", "a JSON object", CHECK) from error
    if not isinstance(info, dict):
        raise RunFormatError(str(path), f"holds a {type(info).__name__}", "a JSON object", CHECK)
    if info.get("format") != FORMAT:
        raise RunFormatError(str(path), f"format is {info.get('format')!r}", f'"format": "{FORMAT}"')
    if info.get("version") not in SUPPORTED_VERSIONS or isinstance(info.get("version"), bool):
        supported = ", ".join(map(str, SUPPORTED_VERSIONS))
        hint = "upgrade entropy-lab, or write the run anew"
        raise RunFormatError(str(path), f"version is {info.get('version')!r}", f"supported: {supported}", hint)
    return info
