"""The kinds of logs of scalars: how each is told by a file's name and first lines, and how it is loaded."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import mlflow_store, trackio_db
from entropy_lab.readers.areal_text import BEGIN
from entropy_lab.readers.console import log_of_steps, step_lines
from entropy_lab.readers.json_lines import read_objects
from entropy_lab.readers.scalars import Log, TableRef, as_step
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.table_logs import log_of_table, scalar_columns
from entropy_lab.readers.tfevents import Damage, read_events
from entropy_lab.readers.tree import Tree, cannot_read
from entropy_lab.readers.wandb_log import MAGIC, read_log

STEP_NAMES: Final = (
    "train/global_step",
    "training/global_step",
    "trainer/global_step",
    "global_step",
    "rollout/step",
    "train/step",
    "eval/step",
    "step",
)
"""Scalars in which frameworks log their own step beside the sink's, which may count calls."""

TEXTS: Final = frozenset({".log", ".txt", ".out", ".err", ".md"})
_PEEK_EVENTS: Final = 400
_PEEK_ROWS: Final = 20
_PEEK_TEXT: Final = 8_000_000


@dataclass(frozen=True)
class LogFile:
    """A log that was found: the names that its first rows have, and how to load it.

    Parameters
    ----------
    label
        The file, and the run inside it where it holds several.
    kind
        ``"TensorBoard"``, ``"W&B"``, ``"trackio"``, ``"MLflow"``, ``"FileLogger"``, ``"table"`` or ``"console log"``.
    names
        Scalars of its first rows.
    run_name
        As the user called the run; empty when the log does not say.
    load
        Reads it whole.
    """

    label: str
    kind: str
    names: frozenset[str]
    run_name: str
    load: Callable[[Sink], Log]


def _file_loggers(tree: Tree, file: Path) -> Iterator[LogFile]:
    if file.suffix != ".jsonl":
        return
    first = tree.first_object(file)
    if first is not None and isinstance(first.get("data"), Mapping) and "step" in first:
        yield LogFile(
            tree.label(file), "FileLogger", frozenset(first["data"]), "", lambda sink: _steps(tree, file, sink)
        )


def _steps(tree: Tree, file: Path, sink: Sink) -> Log:
    log = Log(tree.label(file), "FileLogger")
    for number, row in read_objects(file, log.label, sink):
        step, data = row.get("step"), row.get("data")
        if not isinstance(step, int) or not isinstance(data, Mapping):
            raise RunFormatError(log.label, f"line {number} has no step and data", '{"step": 1, "data": {…}}')
        log.add(step, data)
    return log


def _event_files(tree: Tree, file: Path) -> Iterator[LogFile]:
    if ".tfevents." not in file.name:
        return
    first = islice(read_events(file), _PEEK_EVENTS)
    names = frozenset(event.tag for event in first if not isinstance(event, Damage))
    yield LogFile(tree.label(file), "TensorBoard", names, "", lambda sink: _events(tree, file, sink))


def _events(tree: Tree, file: Path, sink: Sink) -> Log:
    log = Log(tree.label(file), "TensorBoard")
    for event in read_events(file):
        if isinstance(event, Damage):
            sink.warn(f"{log.label}: {event.what} at byte {event.offset:,}; the rest of it is read where possible")
        elif isinstance(event.value, str):
            log.config |= _settings(event.value)
        else:
            log.add(event.step, {event.tag: event.value})
    return log


def _settings(text: str) -> dict[str, Any]:
    """Read the settings that transformers leaves as a JSON text beside its scalars."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _wandb_files(tree: Tree, file: Path) -> Iterator[LogFile]:
    if file.suffix != ".wandb" or not tree.head(file).startswith(MAGIC[:4]):
        return
    peek = read_log(file, _PEEK_ROWS)
    names = frozenset(name for row in peek.history for name in row)
    label = f"{tree.label(file)}" + (f" ({peek.name})" if peek.name else "")
    yield LogFile(label, "W&B", names, peek.name, lambda sink: _wandb(tree, file, sink))


def _wandb(tree: Tree, file: Path, sink: Sink) -> Log:
    raw = read_log(file)
    log = Log(tree.label(file), "W&B", config={key: part for key, part in raw.config.items() if key != "_wandb"})
    if raw.damage:
        sink.warn(f"{log.label}: {raw.damage} after {len(raw.history):,} steps; what came before is read")
    folder = file.parent / "files"
    for row in raw.history:
        step = step_of(row, as_step(row.get("_step")) or 0)
        media = tuple(name.removesuffix("_type") for name in row if name.endswith("._type"))
        log.add(step, {name: value for name, value in row.items() if _is_scalar(name) and not name.startswith(media)})
        for prefix in media:
            if row[f"{prefix}_type"] == "table-file":
                path = folder / str(row.get(f"{prefix}path"))
                log.tables.append(TableRef(step, prefix.removesuffix("."), partial(json_table, path)))
    return log


def _is_scalar(name: str) -> bool:
    """Tell a measured value from the sink's own bookkeeping."""
    return not name.startswith("_") and name not in STEP_NAMES


def json_table(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Read a W&B table: its columns, and its rows.

    Raises
    ------
    RunFormatError
        The file is gone or no table.
    """
    try:
        value = json.loads(path.read_bytes())
        return list(value["columns"]), list(value["data"])
    except OSError as error:
        raise cannot_read(str(path), error) from error
    except (ValueError, LookupError, TypeError) as error:
        raise RunFormatError(str(path), "is no table of W&B", '{"columns": […], "data": [[…]]}') from error


def step_of(row: Mapping[str, Any], default: int) -> int:
    """Give the framework's own step of a logged row, else the sink's.

    Examples
    --------
    >>> step_of({"train/global_step": 3.0}, 7), step_of({}, 7)
    (3, 7)
    """
    return next((step for name in STEP_NAMES if (step := as_step(row.get(name))) is not None), int(default))


def _databases(tree: Tree, file: Path) -> Iterator[LogFile]:
    if not tree.head(file, 16).startswith(trackio_db.HEADER):
        return
    try:
        for name, key in trackio_db.run_names(file).items():
            names = frozenset(name for _, _, row in trackio_db.logged(file, key, _PEEK_ROWS) for name in row)
            label = f"{tree.label(file)}: {name}"
            yield LogFile(label, "trackio", names, name, partial(_trackio, file, key, label))
    except (sqlite3.Error, ValueError) as error:
        raise RunFormatError(tree.label(file), f"cannot be read ({error})", "a whole database of trackio") from error


def _trackio(file: Path, key: tuple[str, str], label: str, _: Sink) -> Log:
    try:
        return _logged(file, key, label)
    except (sqlite3.Error, ValueError) as error:
        raise RunFormatError(label, f"cannot be read ({error})", "a whole database of trackio") from error


def _logged(file: Path, key: tuple[str, str], label: str) -> Log:
    log = Log(label, "trackio", config=trackio_db.config(file, key))
    for number, own, row in trackio_db.logged(file, key):
        step = step_of(row, own)
        log.add(step, {name: value for name, value in row.items() if _is_scalar(name)})
        for title, value in row.items():
            if isinstance(value, Mapping) and value.get("_type") == "trackio.table":
                log.tables.append(TableRef(step, title, partial(_trackio_table, file, number, title)))
    return log


def _trackio_table(file: Path, number: int, title: str) -> tuple[list[str], list[list[Any]]]:
    table = trackio_db.row_values(file, number)[title]
    rows = [row for row in table.get("_value", ()) if isinstance(row, Mapping)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return columns, [[row.get(key) for key in columns] for row in rows]


def _mlflow_stores(tree: Tree, file: Path) -> Iterator[LogFile]:
    if file.name == mlflow_store.META and (files := mlflow_store.metric_files(tree, file)):
        name, label = mlflow_store.run_name(tree, file), tree.label(file.parent)
        yield LogFile(label, "MLflow", frozenset(files), name, partial(_file_store_log, tree, file, label))
    try:
        for name, run in mlflow_store.database_runs(tree, file).items():
            names = mlflow_store.database_names(file, run)
            label = f"{tree.label(file)}: {name}"
            yield LogFile(label, "MLflow", names, name, partial(_database_log, file, run, label))
    except sqlite3.Error as error:
        raise RunFormatError(tree.label(file), f"cannot be read ({error})", "a whole database of MLflow") from error


def _file_store_log(tree: Tree, file: Path, label: str, _: Sink) -> Log:
    files = mlflow_store.metric_files(tree, file)
    return _valued(label, mlflow_store.file_values(files), mlflow_store.file_params(tree, file))


def _database_log(file: Path, run: str, label: str, _: Sink) -> Log:
    try:
        return _valued(label, mlflow_store.database_values(file, run), mlflow_store.database_params(file, run))
    except sqlite3.Error as error:
        raise RunFormatError(label, f"cannot be read ({error})", "a whole database of MLflow") from error


def _valued(label: str, values: Iterable[mlflow_store.Value], config: Mapping[str, Any]) -> Log:
    log = Log(label, "MLflow", config=dict(config))
    for step, name, value in values:
        if _is_scalar(name):
            log.add(step, {name: value})
    return log


def _consoles(tree: Tree, file: Path) -> Iterator[LogFile]:
    if is_text(tree, file):
        names = {name for line in islice(step_lines(file, _PEEK_TEXT), _PEEK_ROWS) for name in line.values}
        if names:
            label = tree.label(file)
            yield LogFile(label, "console log", frozenset(names), "", lambda sink: log_of_steps(file, label))


def _tables(tree: Tree, file: Path) -> Iterator[LogFile]:
    if names := scalar_columns(tree, file):
        label = tree.label(file)
        yield LogFile(label, "table", frozenset(names), "", lambda sink: log_of_table(tree, file, label, sink))


def is_text(tree: Tree, file: Path) -> bool:
    """Tell whether a file may be a console log: a text by its suffix, or without one and without zero bytes.

    AReaL dumps rollouts into thousands of texts, which are passed over by how they begin.
    """
    if tree.head(file, 64).startswith(BEGIN):
        return False
    return file.suffix in TEXTS or (not re.search(r"[a-zA-Z]", file.suffix) and b"\0" not in tree.head(file))


FINDERS: Final[Mapping[str, Callable[[Tree, Path], Iterator[LogFile]]]] = {
    "FileLogger": _file_loggers,
    "W&B": _wandb_files,
    "trackio": _databases,
    "MLflow": _mlflow_stores,
    "TensorBoard": _event_files,
    "table": _tables,
    "console log": _consoles,
}
"""Kind -> what finds the logs of that kind in a file, the most exact kind first."""
