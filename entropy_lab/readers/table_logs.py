"""Scalars in plain tables: a row per step, or a row per step and metric; also as W&B and TensorBoard export them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.scalars import Log, as_number, as_step
from entropy_lab.readers.table_rows import SEPARATORS, SUMMARY, flat, header, parquet_schema, peek, rows_of
from entropy_lab.readers.tree import Tree

if TYPE_CHECKING:
    from entropy_lab.readers.sink import Sink

STEPS: Final = (
    "step",
    "Step",
    "train/global_step",
    "training/global_step",
    "trainer/global_step",
    "global_step",
    "_step",
    "iteration",
    "global_step/max_steps",
)
"""Columns that hold the step, the first that is there."""

_SPELLED: Final = ("step", "global_step", "training_step", "train_step", "update_step", "iteration", "iter")
_BOOKKEEPING: Final = frozenset({"_step", "_runtime", "_timestamp", "_wandb/runtime", "Wall time"})
_NAME_COLUMNS: Final = ("metric", "metric_name", "key", "tag", "name", "variable", "scalar")
_VALUE_COLUMNS: Final = ("value", "metric_value", "scalar_value")
_RUN_COLUMNS: Final = ("run", "run_name", "run_id", "run_uuid", "experiment")
_MISSING: Final = frozenset({"", "na", "n/a", "none", "null", "-"})
_SPREAD: Final = ("__MIN", "__MAX")
_STAMP: Final = "_timestamp"
_EXPORTED: Final = re.compile(r"(.+) - (.+)")
_TAG: Final = re.compile(r"tag-(.+)$")


def step_column(names: Iterable[str]) -> str | None:
    """Find the column that holds the step: one of `STEPS`, else one that differs in capitals and blanks alone.

    Examples
    --------
    >>> step_column(["Step", "entropy"]), step_column(["Training Step", "entropy"]), step_column(["epoch"])
    ('Step', 'Training Step', None)
    """
    given = list(names)
    exact = next((name for name in STEPS if name in given), None)
    if exact is not None:
        return exact
    spelled = {name.strip().lower().replace(" ", "_"): name for name in reversed(given)}
    return next((spelled[name] for name in _SPELLED if name in spelled), None)


def scalar_columns(tree: Tree, file: Path) -> list[str]:
    """Name the scalars of a table with a step; empty for any other file."""
    schema = parquet_schema(file)
    if schema is not None and not _long(schema):  # rows of rollouts are long, and need not be read for this
        step = step_column(schema)
        numbers = [name for name, dtype in schema.items() if dtype.is_numeric() and name not in STEPS]
        return [name for name in numbers if name != step] if step is not None else []
    rows = [flat(row) for row in peek(tree, file)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    step = step_column(names)
    if step is None:
        return []
    if pair := _long(names):
        return list(dict.fromkeys(str(row[pair[0]]) for row in rows if row.get(pair[0])))
    if file.suffix in SEPARATORS:
        return [_exported(name, file)[1] for name in names if name not in STEPS and name != step]
    numeric = {name for row in rows for name, value in row.items() if as_number(value) is not None}
    return [name for name in names if name in numeric and name not in STEPS and name != step]


def _long(names: Iterable[str]) -> tuple[str, str] | None:
    """Find the columns of a table with one row per step and metric: the metric's name, and its value."""
    spelled = {name.strip().lower(): name for name in names}
    name = next((spelled[key] for key in _NAME_COLUMNS if key in spelled), None)
    value = next((spelled[key] for key in _VALUE_COLUMNS if key in spelled), None)
    return None if name is None or value is None else (name, value)


def log_of_table(tree: Tree, file: Path, label: str, sink: Sink) -> Log:
    """Read a table of scalars.

    Parameters
    ----------
    tree, file, label
        The table, and how messages name it.
    sink
        Its options may name the step's column (``--map step=…``) and the run, of an export of several.

    Raises
    ------
    RunFormatError
        There is no step, a step is no whole number, most steps have several rows, or the columns are of several runs.
    """
    log = Log(label, "table")
    if file.suffix in SEPARATORS:
        _require_one_run({_exported(name, file)[0] for name in header(tree, file)} - {""}, label, sink)
    if file.name == SUMMARY:
        sink.note(f"{label}: has the last value of each scalar alone; the run's other steps are not here")
    left: set[str] = set()
    runs: set[str] = set()
    repeated = stepless = 0
    for number, row in rows_of(tree, file, label, sink):
        at = _step(row, label, sink)
        step = _whole(row, at, label, number)
        if step is None:
            stepless += 1
            continue
        values = _values(row, at, file, sink, runs)
        before = log.rows.get(step, {})
        repeated += any(_differs(before[name], number) for name, number in _numbers(values) if name in before)
        left |= {name for name, value in values.items() if as_number(value) is None}
        log.add(step, values)
    _require_one_run(runs, label, sink)
    _tell_stepless(stepless, log, sink)
    if repeated * 2 > len(log.rows):
        wrong = f"has several rows of most steps ({repeated:,} of them replace numbers of a row before)"
        hint = "--map reward=COLUMN prompt=COLUMN reads rollouts"
        raise RunFormatError(label, wrong, "one row of scalars a step", hint)
    if repeated:
        sink.note(f"{label}: {repeated:,} rows state numbers of a step again: the later row counts")
    if left:
        sink.note(f"{label}: columns that are no numbers are left out: {', '.join(sorted(left))}")
    return log


def _whole(row: Mapping[str, Any], at: str | None, label: str, number: int) -> int | None:
    """Read the step of a row; None where it states none."""
    if at is None or _is_missing(row[at]):
        return None
    # ms-swift writes "3/100".
    step = as_step(row[at].partition("/")[0] if isinstance(row[at], str) else row[at])
    if step is None:
        raise RunFormatError(label, f"line {number} has step {row[at]!r}", "a whole number")
    return step


def _tell_stepless(rows: int, log: Log, sink: Sink) -> None:
    if rows and not log.rows:
        raise RunFormatError(log.label, "has no step", f"one of {', '.join(STEPS[:4])}, …", "--map step=COLUMN")
    if rows:
        sink.note(f"{log.label}: {rows:,} rows without a step are left out")


def _values(row: Mapping[str, Any], step: str | None, file: Path, sink: Sink, runs: set[str]) -> dict[str, Any]:
    """Give the scalars of a row under their own names; ``runs`` collects the runs that a column of them names."""
    wanted = sink.options.run_name
    named = {name: value for name, value in row.items() if name.lower() in _RUN_COLUMNS and isinstance(value, str)}
    run = next(filter(None, named.values()), "")
    if wanted is not None and run not in ("", wanted):
        return {}
    runs |= {run} - {""}
    if pair := _long(row):
        return {} if _is_missing(row[pair[1]]) else {str(row[pair[0]]): row[pair[1]]}
    values = {}
    for name, value in row.items():
        run, plain = _exported(name, file)
        dropped = plain in STEPS or plain in _BOOKKEEPING or plain.endswith(_SPREAD) or _is_index(plain)
        stamp = plain.endswith(_STAMP) and name.removesuffix(_STAMP) in row  # SwanLab's time of each value
        if name == step or name in named or dropped or stamp or _is_missing(value):
            continue
        if wanted in (None, run, "") or not run:
            values[plain] = value
    return values


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING)


def _is_index(name: str) -> bool:
    """Tell a column that pandas wrote for the numbers of the rows."""
    return not name or name.startswith("Unnamed: ")


def _differs(first: float, second: float) -> bool:
    return first != second and not (math.isnan(first) and math.isnan(second))


def _numbers(values: dict[str, Any]) -> list[tuple[str, float]]:
    return [(name, number) for name, value in values.items() if (number := as_number(value)) is not None]


def _step(row: Mapping[str, Any], label: str, sink: Sink) -> str | None:
    wanted = sink.options.columns.get("step")
    name = wanted if wanted in row else step_column(row)
    if name is None and wanted is None and label.endswith((".csv", ".tsv", ".parquet")):
        wrong = f"has no step among {', '.join(list(row)[:8])}"
        raise RunFormatError(label, wrong, f"one of {', '.join(STEPS[:4])}, …", "--map step=COLUMN")
    return name


def _exported(name: str, file: Path) -> tuple[str, str]:
    """Split ``run - metric`` of a W&B export; name the ``Value`` of a TensorBoard export by its file."""
    if name == "Value":
        match = _TAG.search(file.stem)
        return "", (match[1] if match else file.stem).replace("_", "/", 1)
    match = _EXPORTED.fullmatch(name)
    return (match[1], match[2]) if match else ("", name)


def _require_one_run(names: Iterable[str], label: str, sink: Sink) -> None:
    runs: Sequence[str] = sorted(names)
    wanted = sink.options.run_name
    if wanted and runs and wanted not in runs:
        raise RunFormatError(label, f"has no run {wanted}", f"one of {', '.join(runs)}")
    if len(runs) > 1 and not wanted:
        raise RunFormatError(label, f"holds {len(runs)} runs: {', '.join(runs[:8])}", "one", f"--run-name {runs[0]}")
