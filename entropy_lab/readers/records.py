"""One row of a source, whose values are held to their kinds as they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import RunFormatError
from entropy_lab.json_values import json_text
from entropy_lab.readers.json_lines import read_objects

if TYPE_CHECKING:
    from entropy_lab.readers.sink import Sink

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Row = TypeVar("Row", bound="Record")
Made = TypeVar("Made")


class Record:
    """One row of a source.

    Parameters
    ----------
    label
        How messages name the file.
    place
        How they name the row: ``"line 7"``, ``"sample 3"``.
    values
        The row.

    Examples
    --------
    >>> row = Record("a.jsonl", "line 7", {"reward": 1, "logprobs": [-0.5, None], "text": "7"})
    >>> row.number("reward"), row.floats("logprobs").tolist(), row.floats("entropy")
    (1.0, [-0.5, nan], None)
    >>> row.number("text")
    Traceback (most recent call last):
    entropy_lab.errors.RunFormatError: a.jsonl: line 7 has no number as text. Hint: --skip-invalid reads the rest
    """

    def __init__(self, label: str, place: str, values: Mapping[str, Any]) -> None:
        self.label, self.place, self.values = label, place, values

    def fault(self, wrong: str, allowed: str = "") -> RunFormatError:
        """Word what is wrong with the row."""
        return RunFormatError(self.label, f"{self.place} {wrong}", allowed, "--skip-invalid reads the rest")

    def number(self, name: str) -> float:
        """Take a number; a Boolean counts as one.

        Raises
        ------
        RunFormatError
            It is absent or something else.
        """
        value = self.values.get(name)
        if not isinstance(value, bool | int | float):
            raise self.fault(f"has no number as {name}")
        try:
            return float(value)
        except OverflowError as error:
            raise self.fault(f"has a {name} of {len(str(value))} digits") from error

    def number_or_none(self, name: str) -> float | None:
        """Take a number, None when it is absent or null."""
        return None if self.values.get(name) is None else self.number(name)

    def whole(self, name: str) -> int:
        """Take a whole number of 0 or more that fits 32 bits.

        Raises
        ------
        RunFormatError
            It is absent or something else.
        """
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            raise self.fault(f"has {name} {str(value)[:40]}", "a whole number, 0 or more")
        return value

    def text(self, name: str) -> str | None:
        """Take a text; anything else as JSON, None when it is absent or null."""
        return json_text(self.values.get(name))

    def floats(self, name: str, length: int | None = None) -> FloatArray | None:
        """Take a list of numbers, null as NaN; None when it is absent, null, or null throughout.

        Parameters
        ----------
        name
            The key.
        length
            What it must be as long as; None for any.

        Raises
        ------
        RunFormatError
            It is something else, or of another length.
        """
        array = self._array(name, np.float64, length)
        return None if array is None or (len(array) and np.isnan(array).all()) else array

    def whole_numbers(self, name: str) -> IntArray | None:
        """Take a list of whole numbers, as token ids; None when it is absent or null.

        Raises
        ------
        RunFormatError
            It is something else.
        """
        values = self.values.get(name)
        if isinstance(values, list) and not all(type(value) is int for value in values):
            raise self.fault(f"has other values than whole numbers in {name}")
        return self._array(name, np.int64, None)

    def mask(self, name: str, length: int | None = None) -> BoolArray | None:
        """Take a list of 0 and 1, or of Booleans; None when it is absent or null.

        Raises
        ------
        RunFormatError
            As ``floats``.
        """
        array = self._array(name, np.float64, length)
        return None if array is None else array > 0

    def _array(self, name: str, dtype: type[Any], length: int | None) -> NDArray[Any] | None:
        values = self.values.get(name)
        if values is None:
            return None
        if not isinstance(values, list | tuple | np.ndarray):
            raise self.fault(f"has no list as {name}")
        try:
            array = np.asarray(values, dtype=dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.fault(f"has other values than numbers in {name}") from error
        if array.ndim != 1:
            raise self.fault(f"has other values than numbers in {name}")
        if length is not None and len(array) != length:
            raise self.fault(f"has {len(array):,} values in {name}, not {length:,}", "one a token")
        return array


def parsed(records: Iterable[Row], parse: Callable[[Row], Made], sink: Sink) -> Iterator[Made]:
    """Yield what becomes of each row; rows that cannot be parsed stop it, or are counted with ``skip_invalid``.

    Parameters
    ----------
    records
        Rows.
    parse
        Raises ``RunFormatError`` for a row that it cannot take.
    sink
        Its option ``skip_invalid`` decides, and it counts.
    """
    for record in records:
        try:
            yield parse(record)
        except RunFormatError as error:
            if not sink.options.skip_invalid:
                raise
            sink.left_out(1, f"{record.label}: {error.wrong}")


def line_records(file: Path, label: str, sink: Sink) -> Iterator[Record]:
    """Yield the rows of a file of JSON lines; the sink gets to know their keys."""
    for number, row in read_objects(file, label, sink):
        sink.meet(row)
        yield Record(label, f"line {number}", row)


def of_step(records: Iterable[Row], key: str, step: int, sink: Sink) -> Iterator[Row]:
    """Yield the rows of a step; rows of another stop it, or are counted with ``skip_invalid``.

    Parameters
    ----------
    records
        Rows.
    key
        Where a row states its step; rows that do not are taken.
    step
        The step.
    sink
        Its option ``skip_invalid`` decides, and it counts.
    """

    def same(record: Row) -> Row:
        if (stated := record.values.get(key, step)) != step:
            raise record.fault(f"is of step {str(stated)[:40]}: rows of several steps are mixed", f"step {step}")
        return record

    return parsed(records, same, sink)
