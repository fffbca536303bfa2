"""Running analyses over a run: those that can share a pass do; what lacks a column is skipped and named."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, get_args, get_type_hints

from entropy_lab import recipes
from entropy_lab.errors import MissingColumnError, ParameterError, RunFormatError, UnknownNameError
from entropy_lab.fold import Fold, run_folds
from entropy_lab.run import Run, RunWarning, open_run
from entropy_lab.table import Table

Parameters = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Results:
    """Tables by analysis, and for each analysis that was skipped the columns it misses."""

    tables: Mapping[str, Table]
    missing: Mapping[str, tuple[str, ...]]


def analyze(run: Run | str | Path, name: str, **parameters: Any) -> Table:
    """Run one analysis.

    Parameters
    ----------
    run
        A run, or the path of one.
    name
        A built-in analysis (``entropy-lab list``), or the path of a recipe, ``"./my_analysis.py"``.
    **parameters
        The analysis' own parameters.

    Returns
    -------
    Table
        Its rows, parameters and units.

    Raises
    ------
    MissingColumnError
        The run did not record a column that the analysis needs.
    UnknownNameError, ParameterError
        There is no such analysis, or it has no such parameter.
    RunFormatError
        The run is invalid.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.writer import RunWriter
    >>> writer = RunWriter(tempfile.mkdtemp() + "/run", method={"name": "grpo", "params": {}})
    >>> key = {"prompt_id": ["a", "a"], "group_id": [0, 0], "sample": [0, 1], "reward": [1, 0]}
    >>> _ = writer.write_rollouts(0, {**key, "correct": [True, False], "epoch": [0, 0]})
    >>> analyze(writer.path, "solve_rates").frame["none_solved"].item()
    0.0
    """
    opened = run if isinstance(run, Run) else open_run(run)
    results = analyze_all(opened, [name], {name: parameters})
    if name in results.missing:
        raise MissingColumnError(name, results.missing[name], f"entropy-lab check {opened.path}")
    return results.tables[name]


def analyze_all(run: Run, names: Iterable[str] = (), parameters: Parameters | None = None) -> Results:
    """Run several analyses in one pass over the rollouts.

    Parameters
    ----------
    run
        The run.
    names
        Analyses, built in or paths; default all built-in ones.
    parameters
        Analysis name -> its parameters.

    Returns
    -------
    Results
        Tables in the order of ``names``, and what was skipped.

    Raises
    ------
    UnknownNameError, ParameterError, RunFormatError
        As ``analyze``; a run that holds neither rollouts nor validation passes is an error, too.
    """
    parameters = parameters or {}
    names = tuple(names) or recipes.names("analyses")
    if unused := [name for name in parameters if name not in names]:
        raise UnknownNameError(unused[0], "has parameters but is not asked for", f"one of {', '.join(names)}")
    modules = {name: recipes.load("analyses", name) for name in names}
    calls = {name: _checked(name, module, parameters.get(name, {})) for name, module in modules.items()}
    if not run.step_files and not run.eval_files:
        require_content(run)
    missing: dict[str, tuple[str, ...]] = {}
    started: dict[str, Table | Fold] = {}
    for name, module in modules.items():
        try:
            started[name] = _start(run, name, module, calls[name])
        except MissingColumnError as error:
            missing[name] = error.columns
    folds = {name: result for name, result in started.items() if isinstance(result, Fold)}
    needs = [(fold, (*_columns(modules[name]), *fold.columns)) for name, fold in folds.items()]
    _warn_of_gaps(run, {column for _, columns in needs for column in columns})
    run_folds(run, needs)
    tables = {name: result.table() if isinstance(result, Fold) else result for name, result in started.items()}
    if not any(map(len, tables.values())):
        require_content(run)
    return Results(tables, missing)


def _warn_of_gaps(run: Run, columns: Iterable[str]) -> None:
    """Say which columns only some files have: the others' rows take no part in what needs them."""
    for column in sorted(columns):
        without = [file.label for file, schema in run.sound_files.items() if column not in schema]
        if column in run.columns and without:
            named = without[0] + (", …" if without[1:] else "")
            count = f"{len(without)} of {len(run.sound_files)} files"
            text = f"{column} is absent in {count} ({named}), whose rows are left out of what needs it"
            warnings.warn(text, RunWarning, stacklevel=3)


def require_content(run: Run) -> None:
    """Refuse a run without a single rollout or validation answer; one imported from logs may have scalars alone.

    Raises
    ------
    RunFormatError
        There is no step file, or none has a row.
    """
    files = [*run.sound_files, *run.sound_evals]
    if "imported" in run.info and run.metrics().height:
        return
    if not any(file.n_rows() for file in files) and not run.skipped:
        allowed = "rollouts/step-000000.parquet, … as docs/run-format.md says"
        wrong = "holds no rollouts and no validation passes"
        wrong += f" ({len(files)} files without rows)" if files else ""
        # Runs of a study keep their tables only; those can be drawn, not made anew.
        hint = (
            f"entropy-lab figures {run.path} draws the tables in analysis/" if (run.path / "analysis").is_dir() else ""
        )
        raise RunFormatError(str(run.path), wrong, allowed, hint)


def _start(run: Run, name: str, module: ModuleType, parameters: Mapping[str, Any]) -> Table | Fold:
    if missing := [column for column in module.NEEDS if column not in run.columns]:
        raise MissingColumnError(name, missing)
    result: Table | Fold = module.analyze(run, **parameters)
    return result


def _columns(module: ModuleType) -> tuple[str, ...]:
    return (*module.NEEDS, *getattr(module, "WANTS", ()))


def _checked(name: str, module: ModuleType, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Hold parameters to the names and types of the recipe's own ``analyze``."""
    known = list(inspect.signature(module.analyze).parameters)[1:]
    hints = get_type_hints(module.analyze)
    for key, value in parameters.items():
        if key not in known:
            raise ParameterError(
                f"{name}.{key}", "is not a parameter", f"one of {', '.join(known)}" if known else "none"
            )
        if key in hints and not _fits(value, hints[key]):
            allowed = str(hints[key]) if get_args(hints[key]) else hints[key].__name__
            raise ParameterError(f"{name}.{key}", f"is {value!r}", allowed.replace("None", "null"))
    return parameters


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type hint
    """Tell whether a value is of a plain type, or of one of a union; other hints are taken on trust."""
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if not all(option in (bool, int, float, str, NoneType) for option in options):
        return True
    if isinstance(value, bool):
        return bool in options
    return isinstance(value, options) or (isinstance(value, int) and float in options)
