"""Table 1: accuracy of every method on every benchmark, ours with intervals beside the paper's published numbers.

First the averages of all settings, then a table for each setting and way of decoding: greedy, the mean over k sampled
answers (avg@k) and the share of problems that one of k solves (pass@k). The step is the last validation of each run;
``at="best:MATH-500"`` below is the paper's rule, which chooses on a benchmark that it then reports.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from entropy_lab.plots import style
from entropy_lab.plots.page import series_of
from entropy_lab.plots.panels import Panel, panels_of
from entropy_lab.plots.points import between
from entropy_lab.plots.published import MARK, table_order
from entropy_lab.plots.scores import AVERAGE
from entropy_lab.plots.tabular import Column, Entry, Grid, draw_grid, entry_of
from entropy_lab.plots.text import LINE, footnote
from entropy_lab.table import Table

COMPARES = True
"""Drawn unasked only for two methods or more."""

PANELS: tuple[Panel, ...] = (
    Panel(
        key="scores",
        title="Accuracy (%)",
        analysis="validation",
        x=("step",),
        y="accuracy",
        y_label="accuracy",
        unit="%",
        low="ci_low",
        high="ci_high",
        interval="bootstrap interval over problems",
        kind="scores",
        at="last",
        published=True,
    ),
)

Section = tuple[str, list[tuple[str, list[Entry]]]]
"""Heading and rows of a part of a table."""

TALLEST = 9.0
"""Inches of a page: where all tables do not fit, the picture leaves out those of single benchmarks."""


def draw(table: Table) -> Figure:
    """Draw the tables; the best of a column is bold where its interval lies above all others.

    Parameters
    ----------
    table
        ``collect("table1", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide, more where many benchmarks or long names need it. The averages and the published table; those
        of single benchmarks, too, where one page holds them all.
    """
    first, ours, theirs = _grids(table)
    grids = [*first, *ours, *theirs]
    width = max(style.WIDTH, *(grid.width for grid in grids)) if grids else style.WIDTH
    notes = footnote(table, width)
    if first and sum(grid.height(width) for grid in grids) + len(notes) * LINE > TALLEST:
        grids = [*first, *theirs]
        notes = footnote(table, width, ["Single benchmarks: in the Markdown file beside this picture"])
    heights = [grid.height(width) for grid in grids]
    total = sum(heights) + len(notes) * LINE + 0.12
    with style.context():
        figure = Figure(figsize=(width, total))
        for number, grid in enumerate(grids):
            draw_grid(figure, grid, sum(heights[:number]))
        figure.text(0.08 / width, 0.05 / total, "\n".join(notes), color=style.GREY, linespacing=1.3, va="bottom")
    return figure


def to_markdown(table: Table) -> str:
    """Write all tables as Markdown, for terminals and README files.

    Parameters
    ----------
    table
        ``collect("table1", PANELS, runs)``.

    Returns
    -------
    str
        The averages, a table for each setting and way of decoding, the published table, and the footnote.
    """
    first, ours, theirs = _grids(table)
    parts = [grid.to_markdown() for grid in (*first, *ours, *theirs)]
    return (
        "\n\n".join(
            [*parts, *([" ".join(notes).replace("\N{NO-BREAK SPACE}", " ")] if (notes := footnote(table)) else [])]
        )
        + "\n"
    )


def _grids(table: Table) -> tuple[list[Grid], list[Grid], list[Grid]]:
    """Make the averages (none where they are one column), a table for each panel of ours, and the published one."""
    panels = [panel for panel in panels_of(table) if not panel["published"]]
    theirs = [panel for panel in panels_of(table) if panel["published"]]
    first = _averages(table, panels, theirs)
    singles = [[_single(table, panel) for panel in part] for part in (panels, theirs)]
    return [first] if len(first.columns) > 1 else [], singles[0], singles[1]


def _rows(table: Table, panel: Mapping[str, Any]) -> pl.DataFrame:
    return table.frame.filter((pl.col("panel") == panel["key"]) & (pl.col("model") == panel["model"]))


def _single(table: Table, panel: Mapping[str, Any]) -> Grid:
    """Every benchmark of one setting and way of decoding."""
    rows = _rows(table, panel)
    heads = rows.sort("x").unique("benchmark", keep="first", maintain_order=True).select("benchmark", "k").rows()
    columns = [Column(name, _answers(panel, k)) for name, k in heads]
    found = {(row["series"], row["benchmark"]): entry_of(row) for row in rows.iter_rows(named=True)}
    body = {label: [found.get((label, name), Entry()) for name, _ in heads] for label in rows["series"].unique()}
    return Grid(" · ".join(filter(None, (panel["model"], panel["title"]))), columns, _sections(rows, body))


def _averages(table: Table, panels: list[Mapping[str, Any]], theirs: list[Mapping[str, Any]]) -> Grid:
    """Put the means of every setting and way of decoding side by side, and the published one of the same method."""
    columns: list[Column] = []
    cells: list[dict[str, Entry]] = []
    for panel in panels:
        rows = _rows(table, panel)
        answers = sorted(set(rows["k"].drop_nulls()))
        named = _answers(panel, between(answers)) if answers else ""
        columns.append(Column(named or panel["key"], group=panel["model"] or "ours"))
        one = rows.filter((pl.col("benchmark") == AVERAGE) | (pl.col("benchmark").n_unique() == 1))
        cells.append({row["series"]: entry_of(row) for row in one.iter_rows(named=True)})
    for panel in theirs:
        average = _rows(table, panel).filter(pl.col("benchmark") == AVERAGE)
        values = {row["series"]: entry_of(row) for row in average.iter_rows(named=True)}
        columns.append(Column("Avg.", group=f"published{MARK}"))
        cells.append({ours: values[other] for ours, other in table.metadata["beside"].items()})
    rows = table.frame.filter(pl.col("published").is_null())
    body = {label: [column.get(label, Entry()) for column in cells] for label in rows["series"].unique()}
    sections = [*_sections(rows, body), *_agreement(table, panels, len(theirs))]
    return Grid("Accuracy (%), mean over benchmarks", columns, sections)


def _agreement(table: Table, panels: list[Mapping[str, Any]], n_others: int) -> list[Section]:
    """How well the order of the methods in each column agrees with the published one."""
    found = {(one["model"], one["panel"]): one for one in table.metadata["agreement"]}
    if not found:
        return []
    ones = [found.get((panel["model"], panel["key"])) for panel in panels]
    means = [Entry(f"{one['spearman']:.2f}") if one else Entry() for one in ones]
    seeds = [Entry(f"{one['low']:.2f}…{one['high']:.2f}") if one and one["n_seeds"] else Entry() for one in ones]
    others = [Entry("")] * n_others
    rows = [(f"ρ with published{MARK}", means + others), ("ρ of single seeds", seeds + others)]
    return [("order of the methods", rows)]


def _sections(rows: pl.DataFrame, body: Mapping[str, list[Entry]]) -> list[Section]:
    paper, beyond = table_order(series_of(rows))
    parts = [("", paper), ("beyond the paper" if paper else "", beyond)]
    return [(heading, [(label, body[label]) for label in labels]) for heading, labels in parts if labels]


def _answers(panel: Mapping[str, Any], k: int | str | None) -> str:
    """How many answers a number is over; a panel of pass@k or of greedy answers says so in its title."""
    return f"avg@{k}" if k and panel["key"] in ("sampled", "undeclared", "published") else ""
