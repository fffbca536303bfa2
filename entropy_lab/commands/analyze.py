"""``entropy-lab analyze``: tables, figures and a summary of one run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from entropy_lab import recipes
from entropy_lab.analysis import Results, analyze_all
from entropy_lab.cli import Analyze
from entropy_lab.commands.emptiness import why_empty
from entropy_lab.commands.opening import open_run_of
from entropy_lab.commands.terminal import console
from entropy_lab.commands.wording import show
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.run import Run
from entropy_lab.summary import summarise
from entropy_lab.table import Table


def run(command: Analyze) -> None:
    """Analyse, write, and report."""
    require_distinct(command.names)
    opened = open_run_of(command, command.run, out=command.out, skip_invalid=command.skip_invalid)
    _ = opened.info
    results = analyze_all(opened, command.names, parameters(command.param))
    if command.names and not results.tables:
        name, columns = next(iter(results.missing.items()))
        raise MissingColumnError(name, columns, f"entropy-lab check {command.run}")
    out = command.out or opened.path
    tables = {
        name: table.write(out / "analysis" / f"{Path(name).stem}.parquet") for name, table in results.tables.items()
    }
    figures = [] if command.no_figures else _draw(opened, results, out, whole=not command.names)
    summary = summarise(opened, results)
    if empty := [name for name, table in results.tables.items() if not len(table)]:
        summary["empty"] = {"analyses": empty, "why": why_empty(opened)}
    summary["tables"] = {name: str(path) for name, path in tables.items()}
    summary["figures"] = [str(path) for path in figures]
    if command.json:
        sys.stdout.write(json.dumps(summary, allow_nan=False) + "\n")
    else:
        show(summary, console())


def require_distinct(names: tuple[str, ...]) -> None:
    """Refuse two analyses whose tables would have the same file name.

    Raises
    ------
    ParameterError
        As ``covariance`` and ``./covariance.py``, asked for together.
    """
    stems: dict[str, str] = {}
    for name in names:
        other = stems.setdefault(Path(name).stem, name)
        if other != name:
            wrong = f"writes the same table as {other}, analysis/{Path(name).stem}.parquet"
            raise ParameterError(name, wrong, "analyses of different names", "rename the file, or run them one by one")


def parameters(words: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Read ``ANALYSIS.NAME=VALUE`` words; values are JSON where they can be, else text.

    Examples
    --------
    >>> parameters(("covariance.first_steps=100", "solve_rates.by=step"))
    {'covariance': {'first_steps': 100}, 'solve_rates': {'by': 'step'}}
    """
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        analysis, dot, name = key.rpartition(".")
        if not (equals and dot and analysis and name):
            raise ParameterError("--param", f"is {word!r}", "ANALYSIS.NAME=VALUE, as covariance.first_steps=100")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found.setdefault(analysis, {})[name] = value
    return found


def _draw(opened: Run, results: Results, out: Path, *, whole: bool) -> list[Path]:
    """Draw the figures that show something new; where a few analyses were asked for, with the tables of the others.

    A recipe of the user's own, ./covariance.py, is drawn as the analysis whose table it writes.
    """
    from entropy_lab.figure import draw_all, tables_of  # matplotlib: not with --no-figures

    new = {Path(name).stem: table for name, table in results.tables.items()}
    logged = {} if opened.step_files or opened.eval_files else _logged(opened)
    made = tables_of(opened, new | logged if whole else _stored(out / "analysis") | new)
    if made.label == "unknown":  # the method's name, where nobody recorded one
        made = replace(made, label=opened.name)
    if logged:
        made = replace(made, label=f"{made.label}, as logged")
    shown = [name for name, table in made.tables.items() if len(table) and name in new | logged]
    files, _ = draw_all([made], (), out / "figures", showing=shown)
    return files


def _logged(opened: Run) -> dict[str, Table]:
    """Give scalars the form of the tables that measure the same in rollouts."""
    scalars = opened.metrics()
    columns = {"entropy": ["step", "entropy"], "training": ["step", "reward"]}
    there = {name: pair for name, pair in columns.items() if set(pair) <= {*scalars.columns}}
    return {name: Table(name, scalars.select(pair).drop_nulls()) for name, pair in there.items()}


def _stored(folder: Path) -> dict[str, Table]:
    files = (folder / f"{name}.parquet" for name in recipes.names("analyses"))
    return {file.stem: Table.read(file) for file in files if file.exists()}
