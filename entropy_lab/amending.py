"""Adding to a run that is there: facts to ``run.json``, columns to a step's file. Nothing recorded is replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from entropy_lab.errors import ParameterError
from entropy_lab.files import replacing
from entropy_lab.run import open_run
from entropy_lab.schema import ROLLOUTS
from entropy_lab.step_files import StepFile
from entropy_lab.validation import polars_dtype, row_breaches


def amend_info(path: Path, **facts: Any) -> None:
    """Add facts to the ``run.json`` of a run, or replace those of their names; the others stay.

    Parameters
    ----------
    path
        Directory of the run.
    **facts
        JSON values.

    Raises
    ------
    RunNotFoundError, RunFormatError
        There is no run, or its ``run.json`` cannot be read.
    OutputError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.writer import RunWriter
    >>> writer = RunWriter(tempfile.mkdtemp() + "/run", method={"name": "grpo", "params": {}})
    >>> amend_info(writer.path, cluster="a")
    >>> open_run(writer.path).info["cluster"]
    'a'
    """
    info = {**open_run(path).info, **facts}
    with replacing(path / "run.json") as temporary:
        temporary.write_text(json.dumps(info, indent=2, default=str) + "\n", encoding="utf-8")


def empty_columns(frame: pl.DataFrame, names: tuple[str, ...]) -> list[str]:
    """Tell which columns hold nothing: absent, or null in every row.

    Parameters
    ----------
    frame
        Rows of a step.
    names
        Columns asked for.

    Returns
    -------
    list of str
        In the order of `names`.

    Examples
    --------
    >>> empty_columns(pl.DataFrame({"logp": [None, -1.0], "entropy": [None, None]}), ("logp", "entropy", "n_tokens"))
    ['entropy', 'n_tokens']
    """
    return [name for name in names if name not in frame.columns or frame[name].null_count() == frame.height]


def amend_step(file: StepFile, columns: pl.DataFrame, facts: Mapping[str, str], target: Path) -> None:
    """Write a step's file again with further columns, whole or not at all.

    Parameters
    ----------
    file
        The step as it is.
    columns
        One row for each of the file's, in its order; columns that hold nothing in the file.
    facts
        Added to the file's key-value metadata.
    target
        Where to: the file itself, or one in another run.

    Raises
    ------
    ParameterError
        A column holds something in the file already.
    RunFormatError
        A value breaks the run format, or the file cannot be read.
    OutputError
        The file cannot be written.
    """
    frame = file.read(list(file.schema()))
    if recorded := sorted(set(columns.columns) - set(empty_columns(frame, tuple(columns.columns)))):
        raise ParameterError(file.label, f"has {', '.join(recorded)} already", "recorded columns are never replaced")
    known = {name: polars_dtype(ROLLOUTS[name].dtype) for name in columns.columns if name in ROLLOUTS}
    frame = frame.with_columns(columns.cast(known).get_columns())  # type: ignore[arg-type]
    for breach in row_breaches(frame, ROLLOUTS, file.step):
        raise breach.error(file.label, "nothing was written")
    names = [*(name for name in ROLLOUTS if name in frame.columns), *(n for n in frame.columns if n not in ROLLOUTS)]
    units = {f"unit:{name}": ROLLOUTS[name].unit for name in known if ROLLOUTS[name].unit}
    metadata = {key: value for key, value in pl.read_parquet_metadata(file.path).items() if key != "ARROW:schema"}
    with replacing(target) as temporary:
        frame.select(names).write_parquet(temporary, compression="zstd", metadata={**metadata, **units, **facts})
