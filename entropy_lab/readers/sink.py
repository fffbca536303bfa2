"""Where a reader puts what it reads: our run on disk, with notes of what was met and done."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from entropy_lab.errors import EntropyLabError, RunFormatError, UnknownNameError
from entropy_lab.files import replacing
from entropy_lab.readers.columns import common_dtype
from entropy_lab.readers.reader import Options
from entropy_lab.readers.verdicts import VerdictRule
from entropy_lab.run import RunWarning, open_run
from entropy_lab.schema import EVALS, ROLLOUTS, Column
from entropy_lab.step_files import step_files
from entropy_lab.validation import KEY, repeat_breach, row_breaches, schema_breaches
from entropy_lab.writer import RunWriter

_MOST_NOTES: Final = 50
_HINT: Final = "--skip-invalid reads the rest"


class Sink:
    """Takes a source's steps one at a time and writes them as a run.

    Parameters
    ----------
    folder
        Where the run is written: a new directory.
    framework
        Name of the reader.
    options
        What the user said.

    Attributes
    ----------
    facts
        What the run was, as far as the source says: ``group_size``, ``model``, ``task``, ``method``, ``config``, ….
    step_offset
        The source's step s is our step ``s - step_offset``.
    notes
        Traps that were met and what was done.
    epochs
        The source's step -> pass over the prompts, from 0: rollouts without an ``epoch`` take it from here.
    metric_names
        Our name of each scalar that was renamed -> the source's.
    n_rows, n_left_out
        Rollouts and validation answers written, and invalid ones left out.

    Examples
    --------
    >>> import tempfile
    >>> sink = Sink(Path(tempfile.mkdtemp()) / "run", "verl", Options())
    >>> frame = pl.DataFrame({"prompt_id": ["a"] * 2, "group_id": [0, 0], "sample": [0, 1], "reward": [1.0, 0.0]})
    >>> sink.rollouts(1, frame, "rollouts/1.jsonl")
    >>> sink.finish({"format": "verl"})["rows"]
    2
    """

    def __init__(self, folder: Path, framework: str, options: Options, step_offset: int = 1) -> None:
        self.framework, self.options, self.step_offset = framework, options, step_offset
        self.writer = RunWriter(folder, method={"name": "unknown", "params": {}}, without_rewards=True)
        self.facts: dict[str, Any] = {}
        self.notes: list[str] = []
        self.epochs: dict[int, int] = {}
        self.metric_names: dict[str, str] = {}
        self.n_rows = self.n_left_out = 0
        self._verdicts = VerdictRule(options.correct_above)
        self._sizes: dict[int, int] = {}
        self._group_sizes: dict[int, int] = {}
        self._judged: set[Path] = set()
        self._met: set[str] = set()

    def meet(self, columns: Iterable[str]) -> None:
        """Remember columns of the source, so that a name that the user maps and that is nowhere is refused."""
        self._met.update(columns)

    def note(self, text: str) -> None:
        """Record what was met and done; the same text once, and no more than fifty."""
        if text in self.notes or len(self.notes) > _MOST_NOTES:
            return
        self.notes.append(text if len(self.notes) < _MOST_NOTES else "and more of the kind")

    def warn(self, text: str) -> None:
        """Record it, and tell the user now."""
        if text not in self.notes:
            warnings.warn(text, RunWarning, stacklevel=2)
        self.note(text)

    def left_out(self, rows: int, why: str) -> None:
        """Count invalid rows that ``skip_invalid`` leaves out."""
        self.n_left_out += rows
        self.warn(f"left out {rows:,} row{'s' * (rows != 1)}: {why}")

    def rollouts(self, step: int, frame: pl.DataFrame, where: str) -> None:
        """Write the rollouts of one update.

        Parameters
        ----------
        step
            The source's step; ``step_offset`` is taken off.
        frame
            Columns of ``schema.ROLLOUTS`` but ``step``, and others that are kept. Without ``correct``, the verdict is
            taken from ``reward`` where that is possible.
        where
            Names the source's file in messages.

        Raises
        ------
        RunFormatError
            A row breaks a rule of the run format (not with ``skip_invalid``), or the step was written before.
        """
        ours = step - self.step_offset
        if ours < 0:
            allowed = f"steps from {self.step_offset}"
            raise RunFormatError(where, f"holds training rollouts of step {step}", allowed)
        if ours in self._sizes:
            raise RunFormatError(where, f"holds step {step}, which another file holds too", "one file a step")
        if "epoch" not in frame.columns and step in self.epochs:
            frame = frame.with_columns(pl.lit(self.epochs[step], pl.Int32).alias("epoch"))
        judged = "correct" not in frame.columns
        if judged:
            frame = frame.with_columns(self._verdicts.judge(frame["reward"]).alias("correct"))
        frame = self._sound(frame, ROLLOUTS, KEY, where)
        self._write(self.writer.write_rollouts, ours, frame, where, judged)
        self._sizes[ours] = frame.height
        size = int(np.median(frame["group_id"].value_counts()["count"].to_numpy())) if frame.height else 0
        self._group_sizes[size] = self._group_sizes.get(size, 0) + 1

    def evals(self, step: int, frame: pl.DataFrame, where: str) -> None:
        """Write the answers of one validation pass.

        Parameters
        ----------
        step
            Ours: the update after which the pass was made.
        frame
            Columns of ``schema.EVALS`` but ``step``, and others that are kept. Without ``correct``, the verdict is
            taken from the column ``reward``.
        where
            Names the source's file in messages.

        Raises
        ------
        RunFormatError
            As ``rollouts``.
        """
        judged = "correct" not in frame.columns
        if judged:
            frame = frame.with_columns(self._verdicts.judge(frame["reward"]).alias("correct"))
        earlier = self.writer.path / "evals" / f"step-{step:06d}.parquet"
        if earlier.exists():  # another benchmark of the same pass
            before = pl.read_parquet(earlier).drop("step")
            self.n_rows -= before.height
            judged = judged and earlier in self._judged
            frame = pl.concat([before, frame], how="diagonal_relaxed")
            earlier.unlink()
        frame = self._sound(frame, EVALS, ("benchmark", "problem_id", "sample"), where)
        self._write(self.writer.write_evals, step, frame, where, judged)

    def metrics(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Write scalars: our step -> name -> value."""
        for step in sorted(rows):
            self.writer.write_metrics({"step": step, **rows[step]})

    def finish(self, imported: Mapping[str, Any], how_to_record: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Settle what only the whole run decides, and complete ``run.json``.

        Parameters
        ----------
        imported
            What is known of the import; counts, notes and renamed scalars are added.
        how_to_record
            Column -> how the framework records it; kept for the columns that this run lacks.

        Returns
        -------
        dict
            The key ``imported`` of ``run.json``.

        Raises
        ------
        UnknownNameError
            The user maps a name that no column of the source has.
        """
        self.require_mapped()
        self._settle()
        if self._verdicts.used:
            self.note(self._verdicts.note)
        if len(steps := sorted(self._sizes)) > 1 and self._sizes[steps[-1]] < self._sizes[steps[-2]]:
            fewer = f"{self._sizes[steps[-1]]:,} rollouts, the one before {self._sizes[steps[-2]]:,}"
            self.warn(f"the last step, {steps[-1] + self.step_offset} in the source, has {fewer}: still being written?")
        if self._group_sizes and "group_size" not in self.facts:
            self.facts["group_size"] = max(self._group_sizes, key=lambda size: self._group_sizes[size])
        known = {
            **imported,
            "rows": self.n_rows,
            "left_out": self.n_left_out,
            "step_offset": self.step_offset,
            "metric_names": self.metric_names,
            "notes": self.notes,
            "how_to_record": _missing(self.writer.path, how_to_record or {}),
        }
        file = self.writer.path / "run.json"
        info = json.loads(file.read_text(encoding="utf-8"))
        with replacing(file) as temporary:
            whole = {**info, **self.facts, "imported": known}
            temporary.write_text(json.dumps(whole, indent=2, default=str) + "\n", encoding="utf-8")
        return known

    def _write(
        self, write: Callable[[int, pl.DataFrame], Path], step: int, frame: pl.DataFrame, where: str, judged: bool
    ) -> None:
        if not frame.height:
            return
        try:
            file = write(step, frame)
            self._judged |= {file} if judged else set()
        except (RunFormatError, ValueError) as error:
            said = error.wrong if isinstance(error, EntropyLabError) else str(error)
            raise RunFormatError(where, said, "a source that fits the run format") from error
        self.n_rows += frame.height

    def _sound(
        self, frame: pl.DataFrame, table: Mapping[str, Column], key: tuple[str, ...], where: str
    ) -> pl.DataFrame:
        # Whole numbers fit columns of floats, too.
        given = {name: dtype for name, dtype in frame.schema.items() if not dtype.is_integer()}
        for breach in schema_breaches(given, {name: column for name, column in table.items() if name in given}):
            raise breach.error(where, "--map names another column")
        breaches = list(row_breaches(frame, table))
        repeats = repeat_breach(frame.select(name for name in key if name in frame.columns), key)
        kept = np.ones(frame.height, dtype=np.bool_)
        for breach in (*breaches, *([repeats] if repeats else [])):
            if not self.options.skip_invalid or breach.rows is None:
                raise breach.error(where, _HINT)
            if rows := int((breach.rows & kept).sum()):
                self.left_out(rows, f"{where}: {breach.described}")
            kept &= ~breach.rows
        return frame.filter(kept) if breaches or repeats else frame

    def require_mapped(self) -> None:
        """Refuse a name that the user maps and that no column met so far has.

        Raises
        ------
        UnknownNameError
            With the columns there are.
        """
        for ours, theirs in self.options.columns.items():
            if theirs not in self._met:
                known = ", ".join(sorted(self._met)[:20])
                wrong = f"{theirs} is no column of the source"
                raise UnknownNameError(f"--map {ours}={theirs}", wrong, f"one of {known}")

    def _settle(self) -> None:
        """Withdraw verdicts that do not hold for the whole run, and make extra columns the same in all files."""
        for folder, table in (("rollouts", ROLLOUTS), ("evals", EVALS)):
            files = step_files(self.writer.path, folder)
            schemas = {file: file.schema() for file in files}
            found: dict[str, list[pl.DataType]] = {}
            for schema in schemas.values():
                for name, dtype in schema.items():
                    found.setdefault(name, []).append(dtype)
            wanted = {name: common_dtype(dtypes) for name, dtypes in found.items() if name not in table}
            for file, schema in schemas.items():
                absent = [pl.lit(None, dtype).alias(name) for name, dtype in wanted.items() if name not in schema]
                changes = absent + [
                    _as(name, dtype, wanted[name])
                    for name, dtype in schema.items()
                    if name in wanted and dtype != wanted[name]
                ]
                if not self._verdicts.holds and file.path in self._judged:
                    nothing = {"correct": pl.Boolean, "group_accuracy": pl.Float32}
                    changes += [pl.lit(None, dtype).alias(name) for name, dtype in nothing.items() if name in schema]
                if changes:
                    _rewrite(file.path, changes)


def _missing(folder: Path, how_to_record: Mapping[str, str]) -> dict[str, str]:
    run = open_run(folder)
    parts = {"rollouts": run.step_files, "evals": run.eval_files, "metrics": (folder / "metrics.jsonl").exists()}
    has = {*run.columns, *(name for name, there in parts.items() if there)}
    if all(file.read(["correct"])["correct"].null_count() == file.n_rows() for file in run.step_files):
        has.discard("correct")
    return {name: how for name, how in how_to_record.items() if name not in has}


def _as(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if wanted == pl.String and dtype.is_nested():
        return pl.col(name).map_elements(lambda value: json.dumps(value.to_list()), return_dtype=pl.String)
    return pl.col(name).cast(wanted)


def _rewrite(file: Path, changes: list[pl.Expr]) -> None:
    units = {key: value for key, value in pl.read_parquet_metadata(file).items() if key.startswith("unit:")}
    frame = pl.read_parquet(file).with_columns(changes)
    with replacing(file) as temporary:
        frame.write_parquet(temporary, compression="zstd", metadata=units)
