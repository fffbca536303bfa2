"""trackio's SQLite database: one per project, with every run of it.

Its own column ``step`` counts calls of ``trackio.log``; the training step is inside the JSON.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

HEADER: Final = b"SQLite format 3\x00"


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """Open for reading only: nothing is written beside the database, and one that is being written is left alone."""
    live = file.with_name(f"{file.name}-wal").exists()
    how = "mode=ro" if live else "immutable=1"
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?{how}", uri=True, timeout=5)) as database:
        yield database


def run_names(file: Path) -> dict[str, tuple[str, str]]:
    """List the runs of a database, oldest first; none when it is not trackio's.

    Returns
    -------
    dict
        Name of the run -> the column and value that select it. Runs that share a name get a piece of their id.

    Raises
    ------
    sqlite3.Error
        The database is damaged or locked.
    """
    with opened(file) as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
        if not {"run_name", "step", "metrics"} <= columns:
            return {}
        key = "run_id" if "run_id" in columns else "run_name"
        query = f"SELECT run_name, {key} FROM metrics GROUP BY {key} ORDER BY MIN(rowid)"
        found = list(database.execute(query))
    shared = {name for name, _ in found if [other for other, _ in found].count(name) > 1}
    return {f"{name}#{value[:8]}" if name in shared else name: (key, value) for name, value in found}


def logged(file: Path, run: tuple[str, str], most: int = -1) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield what a run logged.

    Parameters
    ----------
    file
        The database.
    run
        One of the values of `run_names`.
    most
        Stop after this many rows; -1 for all.

    Yields
    ------
    tuple of (int, int, dict)
        Row number, trackio's own step, and the values; NaN and infinity, which trackio writes as texts, are such texts.

    Raises
    ------
    sqlite3.Error, ValueError
        The database is damaged or locked.
    """
    with opened(file) as database:
        query = f"SELECT rowid, step, metrics FROM metrics WHERE {run[0]} = ? ORDER BY rowid LIMIT ?"
        for row, step, values in database.execute(query, (run[1], most)):
            yield row, step, _parsed(values)


def row_values(file: Path, row: int) -> dict[str, Any]:
    """Read one row's values again."""
    with opened(file) as database:
        found = database.execute("SELECT metrics FROM metrics WHERE rowid = ?", (row,)).fetchone()
        return _parsed(found[0])


def _parsed(text: bytes | str) -> dict[str, Any]:
    value = json.loads(text)
    return value if isinstance(value, dict) else {}


def config(file: Path, run: tuple[str, str]) -> dict[str, Any]:
    """Read a run's settings; empty when the database has none."""
    with opened(file) as database:
        if run[0] not in {row[1] for row in database.execute("PRAGMA table_info(configs)")}:
            return {}
        query = f"SELECT config FROM configs WHERE {run[0]} = ? ORDER BY rowid DESC"
        found = database.execute(query, (run[1],)).fetchone()
    value = _parsed(found[0]) if found else {}
    return {key: part for key, part in value.items() if not key.startswith("_")}
