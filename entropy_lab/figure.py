"""From a run, a study or a table to a picture: analyse, collect, draw, save."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from entropy_lab import recipes
from entropy_lab.analysis import analyze_all
from entropy_lab.errors import RunFormatError
from entropy_lab.files import replacing
from entropy_lab.plots.collect import collect
from entropy_lab.plots.series import RunTables
from entropy_lab.run import Run
from entropy_lab.schema import ANALYSES
from entropy_lab.study import Study, open_study
from entropy_lab.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(source: Table | Run | Study | str | Path, name: str) -> Figure:
    """Draw one figure.

    Parameters
    ----------
    source
        A run, a study or the path of one; or a table: an analysis' (its panels are drawn), or the tidy table of a
        figure.
    name
        A built-in figure (``entropy-lab list``), or the path of a recipe, ``"./my_figure.py"``.

    Returns
    -------
    matplotlib.figure.Figure
        Panels for which there is nothing are left out, and the figure's foot says so.

    Raises
    ------
    UnknownNameError
        There is no such figure.
    RunFormatError
        A run is invalid.

    Examples
    --------
    >>> import polars as pl
    >>> rows = {"accuracy": [0.25, 0.75], "n_groups": [9, 9], "covariance": [0.01, 0.05]}
    >>> draw(Table.of("covariance", rows), "figure1").axes[2].get_xlabel()
    'group accuracy p (fraction)'
    """
    table = source if isinstance(source, Table) and source.name not in ANALYSES else collected(source, name)
    figure: Figure = recipes.load("figures", name).draw(table)
    return figure


def collected(source: Table | Run | Study | str | Path, name: str) -> Table:
    """Give the numbers that a figure would show.

    Parameters
    ----------
    source, name
        As for ``draw``; a table is one of an analysis.

    Returns
    -------
    Table
        One row per point drawn, see ``entropy_lab.plots.collect.collect``.

    Examples
    --------
    >>> import polars as pl
    >>> rows = {"accuracy": [0.25, 0.75], "n_groups": [9, 9], "covariance": [0.01, 0.05]}
    >>> shown = collected(Table.of("covariance", rows), "figure1").frame
    >>> shown.filter(pl.col("panel") == "c")["y"].to_list()
    [0.01, 0.05]
    """
    if isinstance(source, Table):
        runs = [RunTables("run", "unknown", {}, None, None, {source.name: source})]
    else:
        opened = open_study(source) if isinstance(source, str | Path) else source
        runs = [tables_of(run) for run in (opened.runs if isinstance(opened, Study) else (opened,))]
    return _collected(recipes.load("figures", name), name, runs)


def tables_of(run: Run, tables: Mapping[str, Table] | None = None) -> RunTables:
    """Give the tables of a run to a figure.

    Parameters
    ----------
    run
        The run.
    tables
        Its analyses, when they are at hand; else they are computed, or, for a run without rollouts and validation
        passes, read from ``analysis/``.

    Returns
    -------
    RunTables
        Labelled with ``method.label`` of run.json, else with the method's name and parameters; its row of panels is
        ``setting``, else ``model``.

    Raises
    ------
    RunFormatError
        The run is invalid, or holds neither rollouts nor tables.
    """
    if tables is None:
        tables = analyze_all(run).tables if run.step_files or run.eval_files else _stored(run)
    method = run.method
    params: Mapping[str, object] = method.get("params") or {}
    spelled = ", ".join(f"{key}={value}" for key, value in params.items())
    label = str(method.get("label") or (f"{method['name']} ({spelled})" if spelled else method["name"]))
    return RunTables(
        label=label,
        method=str(method["name"]),
        params=params,
        seed=run.info.get("seed"),
        group_size=run.info.get("group_size"),
        tables=tables,
        model=str(run.info.get("setting") or run.info.get("model") or ""),
    )


def draw_all(
    runs: Sequence[RunTables], names: Iterable[str], folder: Path, *, showing: Collection[str] | None = None
) -> tuple[list[Path], dict[str, Table]]:
    """Draw and save figures.

    Parameters
    ----------
    runs
        The runs' tables.
    names
        Figures; default those that apply: a figure that compares methods needs two, one with ``ALONE`` only one.
    folder
        Where the pictures go, each as PNG and PDF; a figure that has ``to_markdown`` is written as Markdown, too.
    showing
        Analyses; a figure that has no panel of any of them is not drawn. By default none is left out for that.

    Returns
    -------
    files : list of pathlib.Path
        What was written.
    tables : dict
        Figure -> the numbers that it shows.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    from entropy_lab.plots.style import save

    n_methods = len({run.label for run in runs})
    files: list[Path] = []
    tables: dict[str, Table] = {}
    for name in tuple(names) or recipes.names("figures"):
        module = recipes.load("figures", name)
        unfit = "COMPARES" if n_methods < 2 else "ALONE"
        if getattr(module, unfit, False) and name not in names:
            continue
        if showing is not None and not any(panel.analysis in showing for panel in module.PANELS):
            continue
        table = _collected(module, name, runs)
        if len(table):
            tables[Path(name).stem] = table
            stem = folder / Path(name).stem
            files += save(module.draw(table), stem)
            if hasattr(module, "to_markdown"):
                with replacing(stem.with_suffix(".md")) as temporary:
                    temporary.write_text(module.to_markdown(table), encoding="utf-8")
                files.append(stem.with_suffix(".md"))
    return files, tables


def _collected(module: ModuleType, name: str, runs: Sequence[RunTables]) -> Table:
    return collect(Path(name).stem, module.PANELS, runs)


def _stored(run: Run) -> Mapping[str, Table]:
    files = sorted((run.path / "analysis").glob("*.parquet"))
    if not files:
        allowed = "rollouts/, evals/ or the tables of entropy-lab analyze in analysis/"
        raise RunFormatError(str(run.path), "holds no rollouts, no validation passes and no tables", allowed)
    return {file.stem: Table.read(file) for file in files}
