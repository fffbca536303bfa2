"""Rules that a run's files must keep, each with the words that say so when one is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.errors import RunFormatError
from entropy_lab.schema import Column

CHECK: Final = "entropy-lab check RUN"
ROUNDING: Final = 1e-4
"""Nats by which a float32 sum of log-probabilities may exceed 0, or an entropy fall below it, by rounding alone."""

KEY: Final = ("step", "group_id", "sample")
EVAL_KEY: Final = ("benchmark", "problem_id", "greedy", "temperature", "sample")
LOG_PROBABILITIES: Final = frozenset({"logp", "logp_after", "sampler_logp"})

_KINDS: Final = {
    "Int": ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
    "Float": ("Float16", "Float32", "Float64"),
    "Boolean": ("Boolean",),
    "String": ("String", "Categorical", "Enum"),
    "List(Int": ("List(Int", "List(UInt"),
    "List(Float": ("List(Float",),
}


@dataclass(frozen=True)
class Breach:
    """One rule broken in one file.

    Parameters
    ----------
    column
        The column, or ``""`` for the whole file.
    wrong
        What is wrong, with the value.
    allowed
        What is allowed.
    rows
        Boolean mask over the file's rows; None when the whole file is affected.
    """

    column: str
    wrong: str
    allowed: str
    rows: NDArray[np.bool_] | None = None

    @property
    def described(self) -> str:
        """What is wrong and what is allowed, without the file."""
        return f"{self.column} {self.wrong}; {self.allowed}".strip()

    def error(self, file: str, hint: str = "") -> RunFormatError:
        """Word the breach as an error about ``file``."""
        where = f"{file}, column {self.column}" if self.column else file
        return RunFormatError(where, self.wrong, self.allowed, hint or "--skip-invalid analyses the rest")


def polars_dtype(name: str) -> pl.DataType:
    """Give the polars type that a schema's dtype text names.

    Examples
    --------
    >>> polars_dtype("List(Float32)")
    List(Float32)
    """
    if name.startswith("List("):
        return pl.List(polars_dtype(name[5:-1]))
    dtype: pl.DataType = getattr(pl, name)()
    return dtype


def same_kind(found: pl.DataType, wanted: str) -> bool:
    """Tell whether a stored type holds values of the wanted kind: any width of it, but never another kind.

    Examples
    --------
    >>> same_kind(pl.Int64(), "Int32"), same_kind(pl.String(), "Float32")
    (True, False)
    """
    kind = next(key for key in _KINDS if wanted.startswith(key))
    nothing = ("Null", "List(Null)") if wanted.startswith("List") else ("Null",)  # no value at all, as pandas writes it
    return str(found).startswith((*_KINDS[kind], *nothing))


def schema_breaches(found: Mapping[str, pl.DataType], columns: Mapping[str, Column]) -> Iterator[Breach]:
    """Yield each required column that a file lacks and each column of another kind than its name demands.

    Parameters
    ----------
    found
        The file's columns and types.
    columns
        The table's schema (``ROLLOUTS``, ``EVALS``).
    """
    for name, column in columns.items():
        if name not in found:
            if column.required:
                needed = ", ".join(key for key, value in columns.items() if value.required)
                yield Breach("", f"required column {name} is missing", f"required: {needed}")
        elif not same_kind(found[name], column.dtype):
            yield Breach(name, f"dtype is {found[name]}", f"the run format asks for {column.dtype}")


def numbers(series: pl.Series) -> NDArray[np.float64]:
    """Give a numeric or Boolean column as float64, null as NaN."""
    if series.null_count() or series.dtype == pl.Null:
        return series.cast(pl.Float64).to_numpy()
    return series.to_numpy().astype(np.float64)  # ten times as fast as a cast in polars


def row_breaches(frame: pl.DataFrame, columns: Mapping[str, Column], step: int | None = None) -> Iterator[Breach]:
    """Yield the rules that rows of one file break, each with the mask of its rows.

    Parameters
    ----------
    frame
        Columns of one step's file, any subset of the schema's.
    columns
        The table's schema.
    step
        The step that the file's name states; None when the rows are of several files.

    Yields
    ------
    Breach
        A null where a value is required, NaN or infinity, a positive log-probability, a negative entropy or length,
        another step's row.
    """
    for name in frame.columns:
        series, column = frame[name], columns.get(name)
        if column is None:
            continue
        # `correct` is required as a column, but null is one of its values: not verified. `reward` is the other way
        # round: a source may keep none at all, but where it does, every rollout has one.
        if (name == "reward" or (column.required and name != "correct")) and series.null_count():
            yield _breach(frame, series.is_null().to_numpy(), name, "a value in every row")
        if column.dtype.startswith("Float"):
            yield from _float_breaches(frame, name)
        elif name in ("n_tokens", "sample", "epoch") and (series < 0).any():
            yield _breach(frame, (series < 0).fill_null(False).to_numpy(), name, "0 or more")
    if step is not None and (frame["step"] != step).any():
        other = (frame["step"] != step).fill_null(False).to_numpy()
        yield _breach(frame, other, "step", f"{step}, as the file's name says: a file holds one step")


def _float_breaches(frame: pl.DataFrame, name: str) -> Iterator[Breach]:
    values = numbers(frame[name])
    # Comparisons with NaN are false, so one comparison finds both NaN and what lies outside the limits.
    low = -ROUNDING if name == "entropy" else -np.finfo(np.float64).max
    high = ROUNDING if name in LOG_PROBABILITIES else np.finfo(np.float64).max
    if name == "group_accuracy":
        low, high = 0.0, 1.0
    bad = ~((values >= low) & (values <= high))
    if not bad.any():
        return
    bad &= frame[name].is_not_null().to_numpy()
    if name == "entropy" and "n_tokens" in frame.columns:
        bad &= ~(np.isnan(values) & (numbers(frame["n_tokens"]) == 0))  # the mean over no token: absent, not wrong
    if bad.any():
        allowed = "a finite number"
        if name in LOG_PROBABILITIES:
            allowed = "a finite number, 0 or less"
        elif name in ("entropy", "group_accuracy"):
            allowed = "0 or more, finite" if name == "entropy" else "between 0 and 1"
        yield _breach(frame, bad, name, allowed)


def repeat_breach(frame: pl.DataFrame, key: tuple[str, ...]) -> Breach | None:
    """Find rows whose key another row has already.

    Of rows that are equal in every column read, the first is kept; rows that share a key and differ are all left out,
    because nothing says which one is right.

    Examples
    --------
    >>> frame = pl.DataFrame({"group_id": [0, 0, 0], "sample": [0, 0, 1], "reward": [1.0, 1.0, 0.0]})
    >>> repeat_breach(frame, ("group_id", "sample")).rows.tolist()
    [False, True, False]
    """
    key = tuple(name for name in key if name in frame.columns)
    copies = ~frame.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    rest = frame.filter(~copies).select(pl.struct(key).is_duplicated()).to_series().to_numpy()
    rows = copies.copy()
    rows[~copies] = rest
    if not rows.any():
        return None
    more = f" and {int(rows.sum()) - 1:,} more rows" if rows.sum() > 1 else ""
    wrong = f"repeats ({', '.join(key)}) in {place(frame, int(np.flatnonzero(rows)[0]))}{more}"
    return Breach("", wrong, "each key once", rows)


def _breach(frame: pl.DataFrame, rows: NDArray[np.bool_], column: str, allowed: str) -> Breach:
    row, more = int(np.flatnonzero(rows)[0]), int(rows.sum()) - 1
    value = frame[column][row]
    wrong = f"is {'null' if value is None else value} in {place(frame, row)}"
    return Breach(column, wrong + (f" and {more:,} more rows" if more else ""), allowed, rows)


def place(frame: pl.DataFrame, row: int) -> str:
    """Name a row so that its owner finds it: its number in the file, and its key.

    Examples
    --------
    >>> place(pl.DataFrame({"group_id": [4], "sample": [1]}), 0)
    'row 0 (group_id 4, sample 1)'
    """
    key = [f"{name} {frame[name][row]}" for name in ("group_id", "problem_id", "sample") if name in frame.columns]
    return f"row {row}" + (f" ({', '.join(key)})" if key else "")
