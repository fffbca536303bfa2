"""From torch tensors, arrays and lists to numbers, flags and texts of B rollouts; torch itself is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError
from entropy_lab.json_values import json_text

TensorLike: TypeAlias = Any
"""What a training loop holds: a torch tensor of any device and type, an array, a list of numbers, rows or tensors.
These have no type in common while torch is not imported; `array`, `rows` and their like look at the value."""


def array(name: str, value: TensorLike) -> NDArray[Any]:
    """Copy a value into a numpy array, from whatever device and type it is on.

    Parameters
    ----------
    name
        What it is, for the error.
    value
        A torch tensor of any type and device, with a gradient or without; an array, or a list of numbers or tensors.
        Floats narrower than 32 bits become float32.

    Returns
    -------
    ndarray
        Of the same shape.

    Raises
    ------
    ParameterError
        Rows of a list differ in length.

    Examples
    --------
    >>> array("rewards", [1, 0])
    array([1, 0])
    """
    if hasattr(value, "detach"):
        tensor = value.detach()
        # numpy has neither bfloat16 nor float8; float32 holds them exactly.
        tensor = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
        numbers: NDArray[Any] = tensor.cpu().numpy()
        return numbers
    if isinstance(value, Sequence) and len(value) and hasattr(value[0], "detach"):
        value = [array(name, each) for each in value]
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise ParameterError(name, f"cannot be an array ({error})", "numbers, rows of one length") from error
    return found.astype(np.float32) if found.dtype == np.float16 else found


@dataclass(frozen=True)
class Rows:
    """Values of B rollouts, all rows one behind the other.

    Parameters
    ----------
    flat
        All values; the first row's first.
    n_B
        Values of each row.
    from_array
        True for a rectangular array, False for a list of rows.
    """

    flat: NDArray[Any]
    n_B: NDArray[np.int64]
    from_array: bool

    @property
    def shape(self) -> str:
        """The shape in words, for errors.

        Examples
        --------
        >>> rows("logps", [[-1.0], [-1.0, -2.0]]).shape
        '2 rows of 1 to 2 values'
        """
        if self.from_array:
            return f"shape ({len(self.n_B)}, {int(self.n_B[0]) if len(self.n_B) else 0})"
        span = f"{self.n_B.min()} to {self.n_B.max()}" if len(self.n_B) else "0"
        return f"{len(self.n_B)} rows of {span} values"


def rows(name: str, value: TensorLike) -> Rows:
    """Read values that every token has.

    Parameters
    ----------
    name
        What they are, for the error.
    value
        Shape (B, T), or a list of B rows of any lengths, or a nested tensor of torch.

    Returns
    -------
    Rows
        B of them.

    Raises
    ------
    ParameterError
        The value has another number of dimensions, or a row is missing.

    Examples
    --------
    >>> rows("logps", [[-1.0], [-2.0, -3.0]]).flat
    array([-1., -2., -3.])
    """
    if getattr(value, "is_nested", False):
        value = value.unbind()
    elif not isinstance(value, Sequence):
        value = array(name, value)
        if value.dtype != object:
            if value.ndim != 2:
                raise ParameterError(name, f"has shape {value.shape}", "(rollouts, tokens), or a list of rows")
            return Rows(value.ravel(), np.full(len(value), value.shape[1]), from_array=True)
    each = [array(name, row) for row in value]
    for number, row in enumerate(each):
        if row.ndim != 1 or row.dtype == object:
            raise ParameterError(name, f"row {number} has shape {row.shape}", "(tokens,), numbers in every row")
    # Empty lists are float64 to numpy, and would make floats of token ids.
    filled = [row for row in each if row.size]
    flat = np.concatenate(filled) if filled else np.zeros(0)
    return Rows(flat, np.array([row.size for row in each], dtype=np.int64), from_array=False)


def is_ragged(value: TensorLike) -> bool:
    """Tell whether a value is a list of rows, each of a length of its own.

    Examples
    --------
    >>> is_ragged([[-1.0], [-2.0, -3.0]]), is_ragged([-3.0]), is_ragged(np.zeros((2, 3)))
    (True, False, False)
    """
    rectangular = hasattr(value, "dtype") and value.dtype != object and not getattr(value, "is_nested", False)
    return not rectangular and is_by_token(value)


def is_by_token(value: TensorLike) -> bool:
    """Tell whether a value has a number for every token, or one for every rollout.

    Examples
    --------
    >>> is_by_token([[-1.0, -2.0]]), is_by_token([-3.0]), is_by_token(np.zeros((2, 3)))
    (True, False, True)
    """
    if getattr(value, "is_nested", False):
        return True
    if hasattr(value, "dtype") and value.dtype != object:
        return len(getattr(value, "shape", ())) > 1
    first = next(iter(value), None)
    return isinstance(first, list | tuple) or getattr(first, "ndim", 0) > 0


def numbers(name: str, value: TensorLike, n_rollouts: int) -> pl.Series:
    """Read one number a rollout.

    Parameters
    ----------
    name
        What they are, for the error and the column.
    value
        Tensor, array or list of shape (B,); None and, in lists, missing numbers become null.
    n_rollouts
        B.

    Returns
    -------
    Series
        Float64.

    Raises
    ------
    ParameterError
        Another shape, or not numbers.

    Examples
    --------
    >>> numbers("rewards", [1, None], 2).to_list()
    [1.0, None]
    """
    series = _series(name, value, n_rollouts)
    if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
        raise ParameterError(name, f"are {series.dtype}", "numbers")
    return series.cast(pl.Float64)


def flags(name: str, value: TensorLike, n_rollouts: int) -> pl.Series:
    """Read one Boolean a rollout; numbers 0 and 1 are Booleans too, None and NaN are null.

    Examples
    --------
    >>> flags("correct", [1.0, float("nan"), 0.0], 3).to_list()
    [True, None, False]
    """
    series = _series(name, value, n_rollouts)
    if series.dtype in (pl.Boolean, pl.Null):
        return series.cast(pl.Boolean)
    if series.dtype.is_numeric():
        series = series.cast(pl.Float64).fill_nan(None)
        if series.drop_nulls().is_in([0.0, 1.0]).all():
            return series.cast(pl.Boolean)
    raise ParameterError(name, f"hold {series.drop_nulls().unique().head(3).to_list()}", "True, False or None")


def texts(name: str, value: TensorLike, n_rollouts: int) -> pl.Series:
    """Read one text a rollout; other values than texts, such as lists of chat messages, become JSON.

    Examples
    --------
    >>> texts("prompts", [[{"role": "user", "content": "2+2"}], "1+1"], 2).to_list()
    ['[{"role": "user", "content": "2+2"}]', '1+1']
    """
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        raise ParameterError(name, f"is one {type(value).__name__}", "a list, one text a rollout")
    require_one_each(name, len(value), n_rollouts)
    return pl.Series(name, [json_text(each) for each in value], dtype=pl.String)


def require_one_each(name: str, found: int, n_rollouts: int) -> None:
    """Refuse another number of entries than rollouts.

    Examples
    --------
    >>> require_one_each("prompts", 2, 16)
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: prompts: has 2 entries for 16 rollouts; one a rollout, the same order everywhere
    """
    if found != n_rollouts:
        wrong = f"has {found} entries for {n_rollouts} rollouts"
        raise ParameterError(name, wrong, "one a rollout, the same order everywhere")


def _series(name: str, value: TensorLike, n_rollouts: int) -> pl.Series:
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        raise ParameterError(name, f"is one {type(value).__name__}", "one value a rollout")
    if is_by_token(value):
        raise ParameterError(name, f"has {rows(name, value).shape}", "shape (rollouts,), one value a rollout")
    if isinstance(value, Sequence):
        items: Any = [each.item() if hasattr(each, "item") else each for each in value]
    else:
        items = array(name, value)
        items = items.tolist() if items.dtype == object else items
    try:
        series = pl.Series(name, items, strict=False)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise ParameterError(
            name, f"cannot be a column ({str(error).splitlines()[0]})", "one value a rollout"
        ) from error
    require_one_each(name, len(series), n_rollouts)
    return series
