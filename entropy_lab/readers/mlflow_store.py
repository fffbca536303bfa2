"""MLflow's stores: the folders of ``mlruns/``, one file a metric, and its SQLite database."""

from __future__ import annotations

import math
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from entropy_lab.readers.trackio_db import HEADER, opened
from entropy_lab.readers.tree import Tree

META: Final = "meta.yaml"
_LINE: Final = re.compile(rb"\d{9,} \S+(?: -?\d+)?\s")
_NAME: Final = re.compile(r"^run_name:\s*(.+?)\s*$", re.MULTILINE)


class Value(NamedTuple):
    """One number: step, name, value."""

    step: int
    name: str
    value: float


def metric_files(tree: Tree, meta: Path) -> dict[str, Path]:
    """Find the files of a run's metrics, by the names of the metrics, which may have slashes.

    Parameters
    ----------
    tree
        The directory's files.
    meta
        ``meta.yaml`` of a run's folder; that of an experiment has no metrics beside it.
    """
    found = _below(tree, meta.parent / "metrics")
    return {name: file for name, file in found.items() if _LINE.match(tree.head(file, 256))}


def _below(tree: Tree, folder: Path) -> dict[str, Path]:
    start = f"{folder}{os.sep}"
    found = [file for file in tree.files if str(file).startswith(start)]
    return {file.relative_to(folder).as_posix(): file for file in found}


def run_name(tree: Tree, meta: Path) -> str:
    """Read a run's name; its folder's where it has none."""
    match = _NAME.search(tree.head(meta).decode("utf-8", "replace"))
    return match[1].strip("'\"") if match else meta.parent.name


def file_values(files: dict[str, Path]) -> Iterator[Value]:
    """Yield the numbers of a run's files; a last line that is cut off is passed over.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    for name, file in files.items():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            parts = line.split()
            try:
                value = Value(int(parts[2]) if len(parts) > 2 else 0, name, float(parts[1]))
            except (IndexError, ValueError):
                continue
            yield value


def file_params(tree: Tree, meta: Path) -> dict[str, str]:
    """Read a run's parameters, with dots for slashes."""
    return {
        name.replace("/", "."): tree.head(file).decode("utf-8", "replace").strip()
        for name, file in _below(tree, meta.parent / "params").items()
    }


def database_runs(tree: Tree, file: Path) -> dict[str, str]:
    """List the runs of a database that has MLflow's tables: name -> id; none for any other file.

    Raises
    ------
    sqlite3.Error
        The database is damaged or locked.
    """
    if not tree.head(file, 16).startswith(HEADER):
        return {}
    with opened(file) as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
        if not {"key", "value", "step", "run_uuid"} <= columns:
            return {}
        query = "SELECT run_uuid, MIN(rowid) FROM metrics GROUP BY run_uuid ORDER BY 2"
        ids = [row[0] for row in database.execute(query)]
        try:
            names = dict(database.execute("SELECT run_uuid, name FROM runs"))
        except sqlite3.Error:  # older databases name runs by a tag
            names = {}
    named = [(names.get(run) or run, run) for run in ids]
    shared = {name for name, _ in named if [other for other, _ in named].count(name) > 1}
    return {f"{name}#{run[:8]}" if name in shared else name: run for name, run in named}


def database_names(file: Path, run: str) -> frozenset[str]:
    """Name the metrics of a run in a database."""
    with opened(file) as database:
        found = database.execute("SELECT DISTINCT key FROM metrics WHERE run_uuid = ?", (run,))
        return frozenset(str(row[0]) for row in found)


def database_values(file: Path, run: str) -> Iterator[Value]:
    """Yield the numbers of a run in a database; NaN is stored beside a zero.

    Raises
    ------
    sqlite3.Error
        The database is damaged or locked.
    """
    with opened(file) as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
        is_nan = "is_nan" if "is_nan" in columns else "0"
        query = f"SELECT step, key, value, {is_nan} FROM metrics WHERE run_uuid = ? ORDER BY rowid"
        for step, name, value, missing in database.execute(query, (run,)):
            yield Value(int(step), str(name), math.nan if missing or value is None else float(value))


def database_params(file: Path, run: str) -> dict[str, str]:
    """Read a run's parameters, with dots for slashes; empty when the database has none."""
    with opened(file) as database:
        if not list(database.execute("PRAGMA table_info(params)")):
            return {}
        found = database.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run,))
        return {str(key).replace("/", "."): str(value) for key, value in found}
