"""Rows of a table, whatever holds them: CSV, JSON lines, one JSON document, or Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.json_lines import read_objects
from entropy_lab.readers.tree import Tree, cannot_read
from entropy_lab.step_files import UNREADABLE

if TYPE_CHECKING:
    from entropy_lab.readers.sink import Sink

SEPARATORS: Final = {".csv": ",", ".tsv": "\t"}
_SEPARATORS: Final = ",;\t"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_PEEK_ROWS: Final = 200
_LARGEST_JSON: Final = 256_000_000
_STEP_KEY: Final = re.compile(rb'"[\w/]*(?:step|iter(?:ation)?)s?"\s*:', re.IGNORECASE)
_DECIMAL_COMMA: Final = re.compile(r"\s*[-+]?\d+,\d+(?:[eE][-+]?\d+)?\s*")
_LISTS: Final = ("history", "logs", "log", "metrics", "rows", "records", "data", "scalars")
_WRAPPERS: Final = frozenset({"metrics", "data", "values", "scalars", "logs"})
SUMMARY: Final = "wandb-summary.json"
_TAGGED: Final = "tag-"
"""In the names of the files that TensorBoard's page exports: lists of time, step and value."""


def separator(head: bytes) -> str:
    r"""Tell what separates the columns of a CSV file: of comma, semicolon and tab, what its first line has most of.

    Examples
    --------
    >>> separator(b"step;entropy\n1;0,5"), separator(b"step\n1")
    (';', ',')
    """
    first = head.decode(encoding(head), "replace").splitlines()[:1]
    return max(_SEPARATORS, key=first[0].count) if first else ","


def encoding(head: bytes) -> str:
    r"""Tell how a text is encoded by its first bytes: spreadsheets write UTF-16.

    Examples
    --------
    >>> encoding("step".encode("utf-16")), encoding(b"step")
    ('utf-16', 'utf-8-sig')
    """
    return "utf-16" if head[:2] in _UTF_16 else "utf-8-sig"


def header(tree: Tree, file: Path) -> list[str]:
    r"""Read the column names of a CSV file; empty when it has no first line.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = file.write_text("step, entropy\n1,0.5\n")
    >>> header(Tree.of(file), file)
    ['step', 'entropy']
    """
    return next(_head_cells(tree, file), [])


def _head_cells(tree: Tree, file: Path) -> Iterator[list[str]]:
    head = tree.head(file)
    lines = head.decode(encoding(head), "replace").splitlines()
    for number, cells in enumerate(csv.reader(lines, delimiter=separator(head))):
        yield [cell.strip() for cell in cells] if number == 0 else cells


def peek(tree: Tree, file: Path) -> list[dict[str, Any]]:
    """Read a table's first rows without reading all of it; none when it is no table.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.jsonl"
    >>> _ = file.write_text('{"step": 1, "entropy": 0.5}' + chr(10) + '{"step": 2, "entr')
    >>> peek(Tree.of(file), file)
    [{'step': 1, 'entropy': 0.5}]
    """
    try:
        if file.suffix in SEPARATORS:
            cells = list(islice(_head_cells(tree, file), _PEEK_ROWS))
            # A header alone has columns, too; the last line may be cut off.
            rows = cells[1:] or [[""] * len(cells[0])] if cells else []
            return [dict(zip(cells[0], row, strict=False)) for row in rows]
        if file.suffix == ".jsonl":
            return _first_objects(tree, file)
        if file.suffix == ".json":
            return (json_rows(tree, file) or [])[:_PEEK_ROWS]
        if file.suffix == ".parquet":
            frame = pl.read_parquet(file, n_rows=_PEEK_ROWS, glob=False)
            return frame.to_dicts() or [dict.fromkeys(frame.columns)]
    except (*UNREADABLE, csv.Error):
        return []
    return []


def parquet_schema(file: Path) -> dict[str, pl.DataType] | None:
    """Read the columns of a Parquet file from its footer; None for another or a damaged file."""
    if file.suffix != ".parquet":
        return None
    try:
        return dict(pl.read_parquet_schema(file))
    except UNREADABLE:
        return None


def _first_objects(tree: Tree, file: Path) -> list[dict[str, Any]]:
    first = tree.first_object(file)
    if first is None:
        return []
    found = [first]
    for line in tree.head(file).lstrip().splitlines()[1:_PEEK_ROWS]:
        try:
            value = json.loads(line)
        except ValueError:  # cut off by the end of what was read
            break
        if isinstance(value, dict):
            found.append(value)
    return found


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Spell nested values out, as ``train/entropy``; what only wraps the scalars (``metrics``, ``data``) has no name.

    Examples
    --------
    >>> flat({"step": 1, "metrics": {"entropy": 0.5, "actor": {"lr": 0.1}}})
    {'step': 1, 'entropy': 0.5, 'actor/lr': 0.1}
    """
    out: dict[str, Any] = {}
    for name, value in unwrapped(row).items():
        if isinstance(value, Mapping):
            out |= {f"{name}/{inner}": part for inner, part in flat(value).items()}
        else:
            out[name] = value
    return out


def unwrapped(row: Mapping[str, Any]) -> dict[str, Any]:
    """Take the values out of what only wraps them; other nested values stay as they are.

    Examples
    --------
    >>> unwrapped({"step": 1, "metrics": {"reward": 0.5, "step": 7}, "meta": {"k": 1}})
    {'step': 1, 'meta': {'k': 1}, 'reward': 0.5}
    """
    own = {name: value for name, value in row.items() if not _wraps(name, value)}
    inner = {key: part for name, value in row.items() if _wraps(name, value) for key, part in value.items()}
    return own | {name: part for name, part in inner.items() if name not in own}


def _wraps(name: str, value: object) -> bool:
    return name in _WRAPPERS and isinstance(value, Mapping)


def json_rows(tree: Tree, file: Path) -> list[dict[str, Any]] | None:
    """Read the rows of a JSON document with a step: a list of objects, such a list under a key, or lists by column.

    Parameters
    ----------
    tree, file
        The file; one that the user names need not show a step in its first bytes.

    Returns
    -------
    list of dict, or None
        None for any other document, and for a Trainer's state.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.json").write_text('{"step": [1, 2], "entropy": [0.5, 0.25]}')
    >>> json_rows(Tree.of(folder), folder / "a.json")
    [{'step': 1, 'entropy': 0.5}, {'step': 2, 'entropy': 0.25}]
    """
    key = f"json {file}"
    if key not in tree.memory:
        tree.memory[key] = _json_rows(tree, file)
    rows: list[dict[str, Any]] | None = tree.memory[key]
    return rows


def _json_rows(tree: Tree, file: Path) -> list[dict[str, Any]] | None:
    head = tree.head(file)
    stepped = _STEP_KEY.search(head) or file == tree.path or _TAGGED in file.name
    if head.lstrip()[:1] not in (b"[", b"{") or not stepped or b'"log_history"' in head:
        return None
    if file.name == SUMMARY and any(other.suffix == ".wandb" for other in tree.files):
        return None  # the log beside it has every step
    if file.stat().st_size > _LARGEST_JSON:
        return None
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(value, dict) and file.name == SUMMARY:
        return [value]
    if (
        _TAGGED in file.name
        and isinstance(value, list)
        and all(isinstance(row, list) and len(row) == 3 for row in value)
    ):
        return [{"Step": step, "Value": number} for _, step, number in value] or None
    if isinstance(value, dict):
        value = next((value[name] for name in _LISTS if _is_rows(value.get(name))), None) or _by_column(value)
    return value if _is_rows(value) else None


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _by_column(columns: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Turn columns into rows: lists of one length, or pandas' objects with the rows' numbers as keys."""
    lists: dict[str, Sequence[Any]] = {}
    for name, column in columns.items():
        values = list(column.values()) if isinstance(column, dict) and all(map(str.isdecimal, column)) else column
        if isinstance(values, list):
            lists[name] = values
    lengths = {len(values) for values in lists.values()}
    if len(lengths) != 1 or len(lists) < 2:
        return None
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def rows_of(tree: Tree, file: Path, label: str, sink: Sink) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a table of scalars, with the number of the line or row.

    Raises
    ------
    RunFormatError
        A line has another number of columns than the first, or the file cannot be read.
    """
    if file.suffix in SEPARATORS:
        yield from _csv_rows(tree, file, label, sink)
    elif file.suffix == ".json":
        yield from enumerate((flat(row) for row in json_rows(tree, file) or ()), start=1)
    elif file.suffix == ".parquet":
        try:
            yield from enumerate(pl.read_parquet(file, glob=False).iter_rows(named=True), start=1)
        except UNREADABLE as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunFormatError(label, f"cannot be read ({said})", "a whole table") from error
    else:
        yield from ((number, flat(row)) for number, row in read_objects(file, label, sink))


def _csv_rows(tree: Tree, file: Path, label: str, sink: Sink) -> Iterator[tuple[int, dict[str, Any]]]:
    head = tree.head(file)
    mark = separator(head)
    try:
        with file.open(encoding=encoding(head), errors="replace", newline="") as stream:
            reader = csv.reader(stream, delimiter=mark)
            names = [name.strip() for name in next(reader, [])]
            for values in reader:
                if not values:
                    continue
                if len(values) != len(names):
                    wrong = f"line {reader.line_num} has {len(values)} of {len(names)} columns"
                    if _is_last(file, values):
                        sink.warn(f"{label}: {wrong}: it is cut off and left out")
                        return
                    raise RunFormatError(label, wrong, "every column in every line")
                given = values if mark == "," else map(_pointed, values)
                yield reader.line_num, dict(zip(names, given, strict=True))
    except OSError as error:
        raise cannot_read(label, error) from error
    except csv.Error as error:
        raise RunFormatError(label, f"is no table ({error})", "comma-separated values") from error


def _pointed(value: str) -> str:
    """Write a decimal comma as a point, as it stands between semicolons or tabs."""
    return value.replace(",", ".") if _DECIMAL_COMMA.fullmatch(value) else value


def _is_last(file: Path, values: Sequence[str]) -> bool:
    """Tell whether a row is what a file without a last line break ends with."""
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - 4096, 0))
        end = stream.read()
    return not end.endswith(b"\n") and end.rsplit(b"\n", 1)[-1].decode("utf-8", "replace").startswith(values[0])
