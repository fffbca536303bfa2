"""Columns of a source as columns of a run: values that one type can hold, and names that mean one thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import polars as pl

from entropy_lab.json_values import json_text
from entropy_lab.schema import EVALS, METRICS, ROLLOUTS

_OURS: Final = frozenset((*ROLLOUTS, *EVALS, *METRICS))


def kept_name(name: str, framework: str) -> str:
    """Give the name under which a column of the source is kept beside ours: its own, unless that means another thing.

    Examples
    --------
    >>> kept_name("pred", "verl"), kept_name("reward", "verl")
    ('pred', 'verl/reward')
    """
    return f"{framework}/{name}" if name in _OURS else name


def message_text(value: object) -> str | None:
    """Give the text of a prompt or completion that may be a list of chat messages.

    One assistant message is its content; any other list is kept whole, as JSON.

    Examples
    --------
    >>> message_text([{"role": "assistant", "content": "7"}]), message_text("7")
    ('7', '7')
    >>> message_text([{"role": "user", "content": "3+4="}])
    '[{"role": "user", "content": "3+4="}]'
    """
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        message = {key: part for key, part in value[0].items() if part is not None}
        if message.keys() == {"role", "content"} and message["role"] == "assistant":
            return json_text(message["content"])
    return json_text(value)


def series(name: str, values: Sequence[Any]) -> pl.Series:
    """Hold values in one column: as Booleans, integers, numbers, texts or lists of numbers, and else as JSON text.

    Parameters
    ----------
    name
        Of the column.
    values
        JSON values; None is null.

    Returns
    -------
    polars.Series

    Examples
    --------
    >>> series("a", [1, None, 2.5]).to_list(), series("b", [{"x": 1}, "y"]).to_list()
    ([1.0, None, 2.5], ['{"x": 1}', 'y'])
    """
    kinds = {type(value) for value in values if value is not None}
    dtype: pl.DataType | None = None
    if not kinds:
        dtype = pl.Null()
    elif kinds == {bool}:
        dtype = pl.Boolean()
    elif kinds == {int} and all(abs(value) < 2**63 for value in values if value is not None):
        dtype = pl.Int64()
    elif kinds <= {int, float}:
        dtype = pl.Float64()
    elif kinds == {list} and _numbers(values):
        dtype = pl.List(pl.Float64())
    if dtype is None:
        return pl.Series(name, [json_text(value) for value in values], dtype=pl.String())
    return pl.Series(name, values, dtype=dtype, strict=False)


def _numbers(values: Sequence[Any]) -> bool:
    kinds = {type(one) for value in values if value is not None for one in value}
    return bool(kinds) and kinds <= {int, float, type(None)}


def frame_of(rows: Sequence[Mapping[str, Any]], names: Iterable[str] = ()) -> pl.DataFrame:
    """Make a frame of JSON objects; an object without a key has null there.

    Parameters
    ----------
    rows
        One per rollout.
    names
        Columns wanted in any case, first.

    Examples
    --------
    >>> frame_of([{"a": 1}, {"b": "x"}]).to_dicts()
    [{'a': 1, 'b': None}, {'a': None, 'b': 'x'}]
    """
    keys = dict.fromkeys(names) | {key: None for row in rows for key in row}
    return pl.DataFrame([series(key, [row.get(key) for row in rows]) for key in keys])


def with_kept(columns: Mapping[str, pl.Series], theirs: pl.DataFrame, framework: str) -> pl.DataFrame:
    """Join columns of ours to the source's own, which are kept beside them; columns of nothing are left out.

    Examples
    --------
    >>> ours = {"reward": pl.Series([1.0]), "truncated": pl.Series([None])}
    >>> with_kept(ours, pl.DataFrame({"reward": [2.0], "pred": ["7"]}), "verl").to_dicts()
    [{'verl/reward': 2.0, 'pred': '7', 'reward': 1.0}]
    """
    kept = {kept_name(name, framework): theirs[name] for name in theirs.columns}
    return pl.DataFrame([column.alias(name) for name, column in {**kept, **columns}.items() if column.dtype != pl.Null])


def common_dtype(dtypes: Iterable[pl.DataType]) -> pl.DataType:
    """Find the type that holds a column of several files: Int64 and Float64 make Float64, anything and text make text.

    Examples
    --------
    >>> common_dtype([pl.Null(), pl.Int64(), pl.Float64()])
    Float64
    """
    found = [dtype for dtype in dict.fromkeys(dtypes) if dtype != pl.Null]
    if len(found) <= 1:
        return found[0] if found else pl.Null()
    if all(dtype.is_numeric() or dtype == pl.Boolean for dtype in found):
        return pl.Float64()
    return pl.String()
